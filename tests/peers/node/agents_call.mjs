// The WebRTC transport of the unmodified Agents SDK on a page in Chromium: places a call, says a text, and prints
// one JSON object of what came back.
//
//   node agents_call.mjs http://127.0.0.1:8080/v1/realtime/calls ek_… --say 你好
//
// A key that does not begin with `ek_` is let through by the SDK's own switch. The exit code is 0 when it connected.

import { rmSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { launch, openPage } from './chromium.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    model: { type: 'string' }, // for session.update; the SDK's own otherwise
    page: { type: 'string' }, // a page of another origin, from which the call is placed
    say: { type: 'string', default: '你好 hello' },
    seconds: { type: 'string', default: '2' },
  },
});
const [url, key] = positionals;
if (!url || !key) throw new Error('usage: agents_call.mjs URL KEY');

/** Runs in the page. */
async function place({ url, key, model, say, seconds }) {
  const { OpenAIRealtimeWebRTC } = window.OpenAIAgentsRealtime;
  const report = { connected: false, changes: [], said: '' };
  const sound = new AudioContext();
  const tone = new OscillatorNode(sound, { frequency: 440 });
  const source = new MediaStreamAudioDestinationNode(sound);
  tone.connect(new GainNode(sound, { gain: 0.4 })).connect(source);
  tone.start();
  const audioElement = document.createElement('audio');
  const transport = new OpenAIRealtimeWebRTC({
    baseUrl: url,
    mediaStream: source.stream,
    audioElement,
    useInsecureApiKey: !key.startsWith('ek_'),
  });
  transport.on('connection_change', (status) => report.changes.push(status));
  const failures = [];
  transport.on('error', ({ error }) => failures.push(String(error?.message ?? JSON.stringify(error))));
  transport.on('output_text_delta', ({ delta }) => (report.said += delta));
  const updated = new Promise((resolve) => transport.on('session.updated', resolve));
  try {
    await transport.connect({ apiKey: key, ...(model ? { model } : {}), initialSessionConfig: { instructions: say } });
  } catch (error) {
    return { ...report, failures, error: String(error.message) };
  }
  report.connected = transport.status === 'connected';
  report.callId = transport.callId;
  report.session = (await updated).session;
  const done = new Promise((resolve) => transport.on('turn_done', resolve));
  transport.sendMessage(say, {});
  report.usage = (await done).response.usage;

  // The tone as it comes out of the SDK's own player.
  const analyser = new AnalyserNode(sound, { fftSize: 16_384, smoothingTimeConstant: 0 });
  new MediaStreamAudioSourceNode(sound, { mediaStream: audioElement.srcObject }).connect(analyser);
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  const levels = new Float32Array(analyser.frequencyBinCount);
  analyser.getFloatFrequencyData(levels);
  const loudest = levels.indexOf(Math.max(...levels));
  report.frequency = levels[loudest] > -60 ? (loudest * sound.sampleRate) / analyser.fftSize : null;
  transport.close();
  return { ...report, failures };
}

const { context, profile } = await launch();
try {
  const { page, errors } = await openPage(context, url, values.page);
  const bundle = 'node_modules/@openai/agents-realtime/dist/bundle/openai-realtime-agents.umd.js';
  await page.addScriptTag({ path: new URL(bundle, import.meta.url).pathname });
  const { model, say, seconds } = values;
  const report = await page.evaluate(place, { url, key, model, say, seconds: Number(seconds) });
  report.errors = errors;
  console.log(JSON.stringify(report));
  process.exitCode = report.connected ? 0 : 1;
} finally {
  await context.close();
  rmSync(profile, { recursive: true, force: true });
}
