// The realtime classes of the unmodified OpenAI SDK. They speak TLS only.

import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { OpenAIRealtimeWebSocket } from 'openai/realtime/websocket';
import { OpenAIRealtimeWS } from 'openai/realtime/ws';
import WebSocket from 'ws';
import * as peer from './peer.mjs';
import { CHINESE, check } from './peer.mjs';

// Node 20 has no WebSocket of its own; this one offers subprotocols as browsers do.
globalThis.WebSocket ??= WebSocket;

const MODEL = 'gpt-realtime';
const client = () =>
  new OpenAI({ baseURL: `${peer.relayUrl()}/v1`, apiKey: peer.relayKey(), dangerouslyAllowBrowser: true });

async function converse(realtime) {
  const sound = Buffer.alloc(300_000, 7).toString('base64');
  let said = '';
  let heard = '';
  const done = new Promise((resolve, reject) => {
    realtime.on('error', reject);
    realtime.on('response.output_text.delta', (event) => (said += event.delta));
    realtime.on('response.output_audio.delta', (event) => (heard += event.delta));
    realtime.on('response.done', resolve);
  });
  await new Promise((resolve, reject) => {
    realtime.on('session.created', resolve);
    realtime.on('error', reject);
  });
  realtime.send({
    type: 'conversation.item.create',
    item: { type: 'message', role: 'user', content: [{ type: 'input_text', text: CHINESE }] },
  });
  realtime.send({ type: 'input_audio_buffer.append', audio: sound });
  realtime.send({ type: 'response.create' });
  const { response } = await done;
  assert.equal(said, CHINESE);
  assert.ok(heard === sound, 'the sound as it was');
  assert.ok(response.usage.total_tokens > 0);
  realtime.close();
}

check(async function realtime_ws() {
  await converse(new OpenAIRealtimeWS({ model: MODEL }, client()));
});

check(async function realtime_websocket() {
  await converse(new OpenAIRealtimeWebSocket({ model: MODEL }, client()));
});

await peer.run();
