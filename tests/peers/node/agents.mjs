// The WebSocket transport of the unmodified Agents SDK, by itself and under a session.

import assert from 'node:assert/strict';
import { OpenAIRealtimeWebSocket, RealtimeAgent, RealtimeSession } from '@openai/agents-realtime';
import * as peer from './peer.mjs';
import { CHINESE, check } from './peer.mjs';

const MODEL = 'gpt-realtime';
const url = () => `${peer.relayUrl().replace('http', 'ws')}/v1/realtime?model=${MODEL}`;
const SOUND = Uint8Array.from({ length: 300_000 }, (_, i) => (i * 7) % 256).buffer;

/** The next event of this name; errors end the wait. */
function next(emitter, name) {
  return new Promise((resolve, reject) => {
    emitter.once(name, resolve);
    emitter.once('error', (event) => reject(new Error(JSON.stringify(event.error ?? event))));
  });
}

/** Puts the pieces of sound that come together. */
function listen(emitter) {
  const heard = [];
  emitter.on('audio', ({ data }) => heard.push(Buffer.from(data)));
  return () => Buffer.concat(heard);
}

/** Closes what was opened, however `work` ends: an open socket keeps Node running. */
async function closing(closable, work) {
  try {
    return await work(closable);
  } finally {
    closable.close();
  }
}

check(async function transport_text_and_sound() {
  await closing(new OpenAIRealtimeWebSocket({ model: MODEL }), async (transport) => {
    // The SDK updates the session twice, in an order of its own: its tracing, and what it was given.
    const updated = new Promise((resolve) => {
      transport.on('session.updated', ({ session }) => session.instructions === CHINESE && resolve());
    });
    await transport.connect({ apiKey: peer.relayKey(), url: url(), initialSessionConfig: { instructions: CHINESE } });
    await updated;
    let said = '';
    const heard = listen(transport);
    transport.on('output_text_delta', ({ delta }) => (said += delta));
    // Twice: what is said once is not heard again.
    for (const text of [CHINESE, 'one two three']) {
      said = '';
      const before = heard().length;
      const done = next(transport, 'turn_done');
      transport.sendAudio(SOUND);
      transport.sendMessage(text, {});
      const { response } = await done;
      assert.equal(said, text);
      assert.ok(heard().subarray(before).equals(Buffer.from(SOUND)), 'the sound as it was');
      assert.ok(response.usage.totalTokens > 0);
    }
  });
});

check(async function session_text_and_sound() {
  const agent = new RealtimeAgent({ name: 'echo', instructions: 'Say what you hear.' });
  const options = { transport: 'websocket', model: MODEL, tracingDisabled: true };
  await closing(new RealtimeSession(agent, options), async (session) => {
    await session.connect({ apiKey: peer.relayKey(), url: url() });
    const heard = listen(session);
    const transcript = next(session.transport, 'conversation.item.retrieved');
    session.sendAudio(SOUND, { commit: true });
    assert.equal((await transcript).item.content[0].transcript, 'echo');
    const ended = next(session, 'agent_end');
    session.sendMessage(CHINESE);
    await ended;
    assert.ok(heard().equals(Buffer.from(SOUND)), 'the sound as it was');
    const parts = session.history.flatMap(({ content }) => content);
    assert.deepEqual(parts.map(({ text, transcript }) => text ?? transcript), ['echo', CHINESE, CHINESE], 'history');
    assert.ok(session.usage.totalTokens > 0);
  });
});

/** A client secret, as a backend mints it. */
async function mint(session) {
  const answer = await fetch(`${peer.relayUrl()}/v1/realtime/client_secrets`, {
    method: 'POST',
    headers: { authorization: `Bearer ${peer.relayKey()}`, 'content-type': 'application/json' },
    body: JSON.stringify({ session }),
  });
  assert.equal(answer.status, 200, await answer.clone().text());
  return (await answer.json()).value;
}

check(async function session_with_a_client_secret() {
  const agent = new RealtimeAgent({ name: 'echo', instructions: 'Say what you hear.' });
  // It names the models of the session and of what it has written down, and its tracing.
  await closing(new RealtimeSession(agent, { transport: 'websocket', model: MODEL }), async (session) => {
    await session.connect({ apiKey: await mint({ type: 'realtime', model: MODEL }), url: url() });
    const ended = next(session, 'agent_end');
    session.sendMessage(CHINESE);
    await ended;
    assert.ok(session.usage.totalTokens > 0);
  });
});

check(async function transport_hears_refusals() {
  await closing(new OpenAIRealtimeWebSocket({ model: MODEL }), async (transport) => {
    transport.on('error', () => {});
    await assert.rejects(transport.connect({ apiKey: 'pk_none_1', url: url() }), ({ message }) => message.endsWith('401'));
    assert.equal(transport.status, 'disconnected');
  });
});

await peer.run();
