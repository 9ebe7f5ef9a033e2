// Talks to a realtime model through AIProxy, by text and by sound, with the package ws.
//
//   cargo run --bin aiproxy -- demo                   # in another terminal
//   npm install ws
//   AIPROXY_KEY=$(cat data/demo/proxy-key) node examples/realtime.mjs 'hello'
//
// 通过 AIProxy 与实时模型对话：发送文字和一段声音，打印回答和收到的声音长度。

import WebSocket from 'ws';

const RATE = 24_000; // What realtime models hear and speak: 16 bit PCM, mono, 24 kHz.
const relay = process.env.AIPROXY_URL ?? 'http://127.0.0.1:8080';
const text = process.argv[2] ?? '你好 hello';

const socket = new WebSocket(`${relay.replace(/^http/, 'ws')}/v1/realtime?model=gpt-realtime`, {
  headers: { authorization: `Bearer ${process.env.AIPROXY_KEY}` },
});
const say = (event) => socket.send(JSON.stringify(event));

/** A second of a sine wave. */
function tone() {
  const samples = Int16Array.from({ length: RATE }, (_, i) => 12_000 * Math.sin((2 * Math.PI * 440 * i) / RATE));
  return Buffer.from(samples.buffer).toString('base64');
}

function talk() {
  // This script says when a turn ends, not the model's ear.
  const pcm = { type: 'audio/pcm', rate: RATE };
  const audio = { input: { format: pcm, turn_detection: null }, output: { format: pcm } };
  say({ type: 'session.update', session: { type: 'realtime', audio } });
  const content = [{ type: 'input_text', text }];
  say({ type: 'conversation.item.create', item: { type: 'message', role: 'user', content } });
  say({ type: 'input_audio_buffer.append', audio: tone() });
  say({ type: 'input_audio_buffer.commit' });
  say({ type: 'response.create' });
}

let heard = 0; // Bytes of sound.
socket.on('message', (message) => {
  const event = JSON.parse(message);
  switch (event.type) {
    case 'session.created':
      talk();
      break;
    case 'response.output_text.delta':
    case 'response.output_audio_transcript.delta':
      process.stdout.write(event.delta);
      break;
    case 'response.output_audio.delta':
      heard += Buffer.from(event.delta, 'base64').length;
      break;
    case 'response.done':
      console.log(`\n${event.response.usage.total_tokens} tokens, ${heard / 2 / RATE} s of sound`);
      socket.close(1000);
      break;
    case 'error':
      console.error(`error: ${event.error.message}`);
      process.exitCode = 1;
      socket.close(1000);
  }
});
// A refused handshake too: `Unexpected server response: 401`.
socket.on('error', (error) => {
  console.error(error.message);
  process.exitCode = 1;
});
