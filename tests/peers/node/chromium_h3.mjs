// A real browser over HTTP/3. AIPROXY_URL is https://127.0.0.1:PORT, the port being one of UDP; CERTIFICATE is a file
// with what is shown there; PAGE_URL is a page whose origin is in `system.cors.origins`.

import assert from 'node:assert/strict';
import { createHash, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { launch, openPage } from './chromium.mjs';
import * as peer from './peer.mjs';
import { CHINESE, check } from './peer.mjs';

const CHAT = '/v1/chat/completions';

const { publicKey } = new X509Certificate(readFileSync(process.env.CERTIFICATE));
const spki = createHash('sha256').update(publicKey.export({ type: 'spki', format: 'der' })).digest('base64');
const { context } = await launch([
  '--enable-quic',
  `--origin-to-force-quic-on=${new URL(peer.relayUrl()).host}`,
  `--ignore-certificate-errors-spki-list=${spki}`,
]);

/** A page of the relay's origin, which may see everything about its requests. */
const ownPage = () => openPage(context, peer.relayUrl());

/** A page of another origin, and the protocols of its answers by their path. */
async function otherPage() {
  const { page } = await openPage(context, undefined, process.env.PAGE_URL);
  const protocols = {};
  const client = await context.newCDPSession(page);
  await client.send('Network.enable');
  client.on('Network.responseReceived', ({ response }) => {
    protocols[new URL(response.url).pathname] = response.protocol;
  });
  return { page, protocols };
}

/** Fetches on the page: status, body, and the protocol as far as the page may know it. */
function fetchOn(page, path, { body, headers = {} } = {}) {
  const asked = {
    url: peer.relayUrl() + path,
    options: {
      method: body ? 'POST' : 'GET',
      headers: { authorization: `Bearer ${peer.relayKey()}`, ...(body && { 'content-type': 'application/json' }), ...headers },
      body: body && JSON.stringify(body),
    },
  };
  return page.evaluate(async ({ url, options }) => {
    const answer = await fetch(url, options);
    const text = await answer.text();
    // It is there a moment after the end of the body.
    const entry = () => performance.getEntriesByType('resource').findLast(({ name }) => name === url);
    while (!entry()) await new Promise((done) => setTimeout(done, 10));
    return { status: answer.status, text, protocol: entry().nextHopProtocol };
  }, asked);
}

const chat = (text) => ({ model: 'gpt-4o', messages: [{ role: 'user', content: text }] });

check(async function get_and_post() {
  const { page, errors } = await ownPage();
  const list = await fetchOn(page, '/v1/models');
  assert.deepEqual([list.status, list.protocol], [200, 'h3']);
  assert.equal(JSON.parse(list.text).object, 'list');
  const { tag, headers } = peer.tagged();
  const answer = await fetchOn(page, CHAT, { body: chat(CHINESE), headers });
  assert.deepEqual([answer.status, answer.protocol], [200, 'h3']);
  assert.equal(JSON.parse(answer.text).choices[0].message.content, `You said: ${CHINESE}`);
  await peer.record(tag, 'complete');
  const refused = await fetchOn(page, '/v1/models', { headers: { authorization: 'Bearer pk_none_1' } });
  assert.deepEqual([refused.status, refused.protocol], [401, 'h3']);
  assert.equal(JSON.parse(refused.text).error.code, 'invalid_key');
  assert.deepEqual(errors, []);
  await page.close();
});

check(async function another_origin() {
  const { page, protocols } = await otherPage();
  // With a preflight before it.
  const answer = await fetchOn(page, CHAT, { body: chat('hi') });
  assert.equal(answer.status, 200);
  // The browser asks for an icon by itself.
  assert.equal(protocols[CHAT], 'h3');
  await page.close();
});

/** Begins a streamed chat on the page; its pieces come to `window.pieces`. */
async function stream(page, text, scenario) {
  const { tag, headers } = peer.tagged(scenario);
  const asked = { url: peer.relayUrl() + CHAT, key: peer.relayKey(), headers, body: { ...chat(text), stream: true } };
  await page.evaluate(async ({ url, key, headers, body }) => {
    window.leaving = new AbortController();
    window.pieces = [];
    const answer = await fetch(url, {
      method: 'POST',
      headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json', ...headers },
      body: JSON.stringify(body),
      signal: window.leaving.signal,
    });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    window.reading = (async () => {
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return 'end';
        window.pieces.push(value);
      }
    })().catch((error) => error.name);
  }, asked);
  await page.waitForFunction(() => window.pieces.length > 0);
  return tag;
}

check(async function streams_as_they_come() {
  const { page } = await ownPage();
  const tag = await stream(page, 'one two three', 'hold={id}');
  await peer.stillOpen(tag);
  await peer.release(tag);
  assert.equal(await page.evaluate(() => window.reading), 'end');
  const text = await page.evaluate(() => window.pieces.join(''));
  assert.ok(text.endsWith('data: [DONE]\n\n'), text);
  const events = text.split('\n\n').filter((event) => event.startsWith('data: {'));
  const deltas = events.flatMap((event) => JSON.parse(event.slice(6)).choices.map(({ delta }) => delta.content ?? ''));
  assert.equal(deltas.join(''), 'You said: one two three');
  await peer.record(tag, 'complete');
  await page.close();
});

check(async function leaves_a_stream() {
  const { page } = await ownPage();
  const tag = await stream(page, 'one two three', 'hold={id}');
  await peer.stillOpen(tag);
  await page.evaluate(() => window.leaving.abort());
  assert.equal(await page.evaluate(() => window.reading), 'AbortError');
  await peer.record(tag, 'cut');
  assert.equal((await fetchOn(page, '/v1/models')).protocol, 'h3');
  await page.close();
});

try {
  await peer.run();
} finally {
  await context.close();
}
