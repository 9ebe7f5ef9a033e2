// A real browser: the page in examples/, the unmodified Agents SDK on a page, and pages of an origin
// that the relay does not allow. PAGE_URL is a page whose origin is allowed, OTHER_PAGE_URL one whose
// is not; both are examples/realtime.html.

import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { launch } from './chromium.mjs';
import * as peer from './peer.mjs';
import { CHINESE, check } from './peer.mjs';

const MODEL = 'gpt-realtime';
const socketUrl = () => peer.relayUrl().replace('http', 'ws');
const keyProtocol = () => `openai-insecure-api-key.${peer.relayKey()}`;

const { context } = await launch();

/** A fresh page, and what it complains about. */
async function open(url) {
  const page = await context.newPage();
  const errors = [];
  page.on('pageerror', (error) => errors.push(error));
  await page.goto(url);
  return { page, errors };
}

/** The events that pass over the page's next WebSocket. */
class Tap extends EventEmitter {
  #passed = [];

  constructor(page) {
    super();
    page.once('websocket', (socket) => {
      for (const direction of ['sent', 'received']) {
        socket.on(`frame${direction}`, ({ payload }) => {
          this.#passed.push({ direction, event: JSON.parse(payload) });
          this.emit('passed');
        });
      }
    });
  }

  of(direction, type) {
    const all = this.#passed.filter((one) => one.direction === direction && one.event.type === type);
    return all.map(({ event }) => event);
  }

  /** Waits until there are so many. */
  async count(direction, type, count) {
    const signal = AbortSignal.timeout(30_000);
    while (this.of(direction, type).length < count) await once(this, 'passed', { signal });
  }
}

async function connect(page) {
  await page.fill('#url', socketUrl());
  await page.fill('#key', peer.relayKey());
  await page.fill('#model', MODEL);
  await page.click('#connect');
}

const logged = (page, text) => page.locator('#log', { hasText: text }).waitFor();

check(async function the_example_page_speaks_text_and_sound() {
  const { page, errors } = await open(process.env.PAGE_URL);
  const tap = new Tap(page);
  await connect(page);
  await logged(page, 'open, subprotocol realtime\n');
  await logged(page, 'session.updated');

  await page.fill('#text', CHINESE);
  await page.click('#send');
  await logged(page, 'usage');
  assert.equal(await page.textContent('#answer'), CHINESE);

  // The microphone, until it has given a second of sound.
  await page.click('#microphone');
  await page.locator('#microphone', { hasText: 'Stop' }).waitFor();
  await tap.count('sent', 'input_audio_buffer.append', 10);
  await page.click('#microphone');
  await tap.count('received', 'response.done', 2);
  const said = tap.of('sent', 'input_audio_buffer.append').map(({ audio }) => audio);
  const heard = tap.of('received', 'response.output_audio.delta').map(({ delta }) => delta);
  assert.ok(said.some((audio) => /[^A=]/.test(audio)), 'sound, not silence');
  assert.deepEqual(heard, said, 'the sound as it was');
  const { usage } = tap.of('received', 'response.done').at(-1).response;
  assert.equal(usage.input_token_details.audio_tokens, said.length);

  await page.click('#disconnect');
  await logged(page, 'closed 1000');
  assert.deepEqual(errors, []);
  assert.ok(!(await page.textContent('body')).includes(peer.relayKey()), 'the key is not shown');
  await page.close();
});

/** Opens a WebSocket by hand on the page: what became of it, and the first message. */
function dial(page, url, protocols) {
  return page.evaluate(
    ([url, protocols]) =>
      new Promise((resolve) => {
        const socket = new WebSocket(url, protocols);
        socket.onmessage = ({ data }) => {
          resolve({ protocol: socket.protocol, first: JSON.parse(data).type });
          socket.close(1000);
        };
        // Each of these platforms answers: the second says nothing before it has heard sound.
        socket.onopen = () => url.includes('/listen') && socket.send(new Uint8Array(3200));
        socket.onclose = ({ code }) => resolve({ code });
      }),
    [url, protocols],
  );
}

check(async function a_key_is_taken_from_the_subprotocols_that_browsers_use() {
  const { page } = await open(process.env.PAGE_URL);
  const realtime = `${socketUrl()}/v1/realtime?model=${MODEL}`;
  const listen = `${socketUrl()}/v1/listen?model=nova-3`;
  for (const [url, protocols, expected] of [
    [realtime, ['realtime', keyProtocol()], { protocol: 'realtime', first: 'session.created' }],
    [realtime, [keyProtocol(), 'realtime'], { protocol: 'realtime', first: 'session.created' }],
    [listen, ['token', peer.relayKey()], { protocol: 'token', first: 'Results' }],
    [realtime, ['realtime', 'openai-insecure-api-key.pk_none_1'], { code: 1006 }],
    [realtime, ['realtime'], { code: 1006 }],
  ]) {
    assert.deepEqual(await dial(page, url, protocols), expected, `${url} ${protocols.length}`);
  }
  await page.close();
});

check(async function a_page_of_another_origin_opens_no_socket() {
  const { page } = await open(process.env.OTHER_PAGE_URL);
  const protocols = ['realtime', keyProtocol()];
  assert.deepEqual(await dial(page, `${socketUrl()}/v1/realtime?model=${MODEL}`, protocols), { code: 1006 });
  await connect(page);
  await logged(page, 'system.cors.origins');
  await page.locator('#state', { hasText: 'closed' }).waitFor();
  await page.close();
});

check(async function the_agents_sdk_speaks_from_a_page() {
  const { page } = await open(process.env.PAGE_URL);
  await page.addScriptTag({
    path: new URL('node_modules/@openai/agents-realtime/dist/bundle/openai-realtime-agents.umd.js', import.meta.url)
      .pathname,
  });
  const outcome = await page.evaluate(
    async ([url, apiKey, model, text]) => {
      const { OpenAIRealtimeWebSocket } = window.OpenAIAgentsRealtime;
      const transport = new OpenAIRealtimeWebSocket({ model, useInsecureApiKey: true });
      let said = '';
      let heard = 0;
      transport.on('output_text_delta', ({ delta }) => (said += delta));
      transport.on('audio', ({ data }) => (heard += data.byteLength));
      const done = new Promise((resolve, reject) => {
        transport.on('turn_done', resolve);
        transport.on('error', ({ error }) => reject(new Error(JSON.stringify(error))));
      });
      await transport.connect({ apiKey, url });
      const { protocol } = transport.connectionState.websocket;
      transport.sendAudio(new Uint8Array(48_000).buffer);
      transport.sendMessage(text, {});
      const { response } = await done;
      transport.close();
      return { protocol, said, heard, counted: response.usage.totalTokens > 0 };
    },
    [`${socketUrl()}/v1/realtime?model=${MODEL}`, peer.relayKey(), MODEL, CHINESE],
  );
  assert.deepEqual(outcome, { protocol: 'realtime', said: CHINESE, heard: 48_000, counted: true });
  await page.close();
});

try {
  await peer.run();
} finally {
  await context.close();
}
