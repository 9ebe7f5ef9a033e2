// The unmodified OpenAI SDK against the relay: only baseURL and apiKey differ.

import assert from 'node:assert/strict';
import { createReadStream, createWriteStream } from 'node:fs';
import { rm, stat } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import OpenAI, { toFile, toStreamingFile } from 'openai';
import * as peer from './peer.mjs';
import { CHINESE, MIB, check, relayCheck, tagged } from './peer.mjs';

const CHAT = 'gpt-4o-mini';
const EMBEDDING = 'text-embedding-3-small';

let shared;
const client = () =>
  (shared ??= new OpenAI({
    baseURL: `${peer.relayUrl()}/v1`,
    apiKey: peer.relayKey(),
    maxRetries: 0,
    timeout: 20_000,
  }));

const user = (text) => [{ role: 'user', content: text }];

/** One chat call; `more` are body fields, `headers` go with the request. */
const chat = (text, more = {}, headers = {}) =>
  client().chat.completions.create({ model: CHAT, messages: user(text), ...more }, { headers });

const deltas = (chunks) => chunks.map((c) => c.choices[0]?.delta.content ?? '').join('');

const outputText = (events) => events.map((e) => (e.type === 'response.output_text.delta' ? e.delta : '')).join('');

async function collect(stream) {
  const items = [];
  for await (const item of stream) items.push(item);
  return items;
}

/** Reads until `text(items)` is not empty, proves that the sandbox still holds
 * the rest, lets it go, reads on; the whole text must be `whole`. */
async function collectHeld(stream, tag, text, whole) {
  const events = stream[Symbol.asyncIterator]();
  const items = [];
  while (!text(items)) {
    const { done, value } = await events.next();
    assert.ok(!done, 'the stream ended without any text');
    items.push(value);
  }
  await peer.stillOpen(tag);
  assert.notEqual(text(items), whole, 'nothing was held back');
  await peer.release(tag);
  for (let next = await events.next(); !next.done; next = await events.next()) items.push(next.value);
  assert.equal(text(items), whole);
  await peer.record(tag, 'complete');
  return items;
}

/** The error that a chat call gets when the platform plays `scenario`. */
async function refused(kind, scenario, more = {}) {
  const { tag, headers } = tagged(scenario);
  const error = await peer.rejects(chat('Hello', more, headers), kind);
  assert.equal((await peer.records(tag)).length, 1, 'requests at the sandbox');
  assert.ok(error.error.message, 'no message');
  return error;
}

// --- models -----------------------------------------------------------------

check(async function models_list() {
  const ids = (await collect(client().models.list())).map((model) => model.id);
  assert.ok(ids.includes(CHAT) && ids.includes(EMBEDDING), `models: ${ids}`);
  assert.equal(new Set(ids).size, ids.length, 'distinct models');
});

check(async function models_retrieve() {
  const model = await client().models.retrieve(CHAT);
  assert.deepEqual([model.id, model.object], [CHAT, 'model']);
});

// --- chat completions ----------------------------------------------------------

check(async function chat_plain() {
  const { choices, usage } = await chat('Hello there');
  assert.equal(choices[0].message.content, 'You said: Hello there');
  assert.equal(choices[0].finish_reason, 'stop');
  assert.ok(usage.prompt_tokens > 0 && usage.completion_tokens > 0, JSON.stringify(usage));
  assert.equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
});

check(async function chat_chinese() {
  assert.equal((await chat(CHINESE)).choices[0].message.content, `You said: ${CHINESE}`);
});

check(async function chat_stream() {
  const chunks = await collect(await chat(`${CHINESE} and five more words here`, { stream: true }));
  assert.ok(chunks.length > 3, `${chunks.length} chunks`);
  assert.equal(deltas(chunks), `You said: ${CHINESE} and five more words here`);
  assert.equal(chunks.filter((c) => c.choices.length).at(-1).choices[0].finish_reason, 'stop');
  assert.ok(!chunks.some((c) => c.usage), 'usage was not asked for');
  assert.equal(new Set(chunks.map((c) => c.id)).size, 1, 'ids of one answer');
});

check(async function chat_stream_first_chunk_while_upstream_holds() {
  const { tag, headers } = tagged('hold={id}');
  const stream = await chat('one two three', { stream: true }, headers);
  await collectHeld(stream, tag, deltas, 'You said: one two three');
});

check(async function chat_stream_usage() {
  const chunks = await collect(await chat('count me', { stream: true, stream_options: { include_usage: true } }));
  assert.equal(deltas(chunks), 'You said: count me');
  assert.ok(!chunks.slice(0, -1).some((c) => c.usage), 'usage before the last chunk');
  const { choices, usage } = chunks.at(-1);
  assert.deepEqual(choices, [], 'choices of the usage chunk');
  assert.ok(usage.prompt_tokens > 0 && usage.completion_tokens > 0, JSON.stringify(usage));
});

check(async function chat_stream_cancelled() {
  const { tag, headers } = tagged('hold={id}');
  try {
    const stream = await chat('never read whole', { stream: true }, headers);
    for await (const chunk of stream) {
      if (!deltas([chunk])) continue;
      await peer.stillOpen(tag);
      break;
    }
    await peer.record(tag, 'cut', 10);
  } finally {
    await peer.release(tag);
  }
});

// --- embeddings, speech, responses ------------------------------------------------

check(async function embeddings() {
  // The SDK asks for base64 unless told otherwise, and decodes it itself.
  const input = ['first text', CHINESE];
  const packed = await client().embeddings.create({ model: EMBEDDING, input });
  const floats = await client().embeddings.create({ model: EMBEDDING, input, encoding_format: 'float' });
  assert.deepEqual(packed.data.map((item) => item.index), [0, 1]);
  assert.ok(packed.usage.prompt_tokens > 0, JSON.stringify(packed.usage));
  for (const [i, { embedding }] of packed.data.entries()) {
    const other = floats.data[i].embedding;
    assert.ok(embedding.length > 1 && embedding.length === other.length, `${embedding.length}, ${other.length}`);
    const gap = Math.max(...embedding.map((value, at) => Math.abs(value - other[at])));
    assert.ok(gap < 1e-5, `base64 and float differ by ${gap}`);
  }
});

check(async function speech_to_file() {
  const path = peer.workFile('speech.mp3');
  const { tag, headers } = tagged();
  try {
    const answer = await client().audio.speech.create(
      { model: 'tts-1', voice: 'alloy', input: `Hello ${CHINESE}` },
      { headers },
    );
    assert.match(answer.headers.get('content-type'), /^audio\//);
    await pipeline(Readable.fromWeb(answer.body), createWriteStream(path));
    const { size } = await stat(path);
    assert.ok(size > 0, 'empty audio');
    assert.equal(size, (await peer.record(tag, 'complete')).response_bytes, 'bytes of audio');
  } finally {
    await rm(path, { force: true });
  }
});

check(async function responses_plain() {
  const answer = await client().responses.create({ model: CHAT, input: `Hello ${CHINESE}` });
  assert.equal(answer.status, 'completed');
  assert.equal(answer.output_text, `You said: Hello ${CHINESE}`);
  assert.ok(answer.usage.input_tokens > 0 && answer.usage.output_tokens > 0, JSON.stringify(answer.usage));
});

check(async function responses_stream() {
  const { tag, headers } = tagged('hold={id}');
  const stream = await client().responses.create({ model: CHAT, input: 'one two three', stream: true }, { headers });
  const events = await collectHeld(stream, tag, outputText, 'You said: one two three');
  assert.equal(events[0].type, 'response.created');
  assert.equal(events.at(-1).type, 'response.completed');
  const numbers = events.map((e) => e.sequence_number);
  assert.deepEqual(numbers, numbers.toSorted((a, b) => a - b), 'sequence numbers');
  assert.ok(events.at(-1).response.usage.output_tokens > 0, 'usage of the finished response');
});

// --- files ------------------------------------------------------------------

/** The multipart body that the SDK's streaming form writes around the file. */
const multipart = (boundary, name, path) => [
  `--${boundary}\r\nContent-Disposition: form-data; name="file"; filename="${name}"\r\n` +
    'Content-Type: application/octet-stream\r\n\r\n',
  { path },
  `\r\n--${boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n--${boundary}--\r\n`,
];

/** Uploads `size` random bytes from disk (chunked: the SDK does not know the
 * length of a stream) and downloads them to disk, comparing sha256 at every station. */
async function transfer(size, watch) {
  const source = peer.workFile('up.bin');
  const target = peer.workFile('down.bin');
  const options = { timeout: 120_000 };
  try {
    const digest = await peer.randomFile(source, size);

    const up = tagged();
    const stored = await watch(8, `upload of ${size / MIB} MiB`, () =>
      client().files.create(
        { file: toStreamingFile(createReadStream(source), 'up.bin'), purpose: 'user_data' },
        { ...options, headers: up.headers },
      ),
    );
    const seen = await peer.record(up.tag, 'complete');
    const boundary = /boundary=(\S+)/.exec(seen.headers['content-type'])[1];
    assert.equal(seen.request_sha256, await peer.sha256(...multipart(boundary, 'up.bin', source)), 'request body');
    assert.deepEqual([stored.bytes, stored.filename, stored.purpose], [size, 'up.bin', 'user_data']);

    const down = tagged();
    await watch(8, `download of ${size / MIB} MiB`, async () => {
      const answer = await client().files.content(stored.id, { ...options, headers: down.headers });
      await pipeline(Readable.fromWeb(answer.body), createWriteStream(target));
    });
    assert.equal((await stat(target)).size, size, 'bytes downloaded');
    assert.equal(await peer.sha256({ path: target }), digest, 'sha256 of the download');
    assert.equal((await peer.record(down.tag, 'complete')).response_bytes, size, 'bytes the sandbox sent');
    assert.ok((await client().files.delete(stored.id)).deleted, 'not deleted');
  } finally {
    await rm(source, { force: true });
    await rm(target, { force: true });
  }
}

check(async function files_64_mib_streamed() {
  await transfer(4 * MIB, (_limit, _what, work) => work());
  await transfer(64 * MIB, peer.memoryGrowthBelow);
});

check(async function files_list_and_delete() {
  const ids = async () => (await collect(client().files.list())).map((file) => file.id);
  const file = await toFile(Buffer.from('内容'), '说明.txt');
  const stored = await client().files.create({ file, purpose: 'user_data' });
  assert.equal((await client().files.retrieve(stored.id)).filename, '说明.txt');
  assert.ok((await ids()).includes(stored.id), 'not in the list');
  const gone = await client().files.delete(stored.id);
  assert.deepEqual([gone.id, gone.deleted], [stored.id, true]);
  assert.ok(!(await ids()).includes(stored.id), 'still in the list');
  await peer.rejects(client().files.retrieve(stored.id), OpenAI.NotFoundError);
});

// --- refusals ---------------------------------------------------------------

check(async function upstream_429() {
  const error = await refused(OpenAI.RateLimitError, 'status=429;retry-after=7');
  assert.deepEqual([error.status, error.code, error.type], [429, 'rate_limit_exceeded', 'requests']);
  assert.equal(error.headers.get('retry-after'), '7');
});

check(async function upstream_400() {
  const error = await refused(OpenAI.BadRequestError, 'status=400;code=context_length_exceeded');
  assert.deepEqual(
    [error.status, error.code, error.type],
    [400, 'context_length_exceeded', 'invalid_request_error'],
  );
});

check(async function upstream_500() {
  const error = await refused(OpenAI.InternalServerError, 'status=500');
  assert.deepEqual([error.status, error.type], [500, 'server_error']);
});

check(async function upstream_429_before_a_stream() {
  const error = await refused(OpenAI.RateLimitError, 'status=429;retry-after=7', { stream: true });
  assert.equal(error.code, 'rate_limit_exceeded');
  assert.equal(error.headers.get('retry-after'), '7');
});

relayCheck(async function wrong_proxy_key() {
  const { tag, headers } = tagged();
  let sent = 0;
  const counted = (...request) => ((sent += 1), fetch(...request));
  const stranger = client().withOptions({ apiKey: 'not-a-proxy-key', maxRetries: 2, fetch: counted });
  const call = stranger.chat.completions.create({ model: CHAT, messages: user('Hello') }, { headers });
  const error = await peer.rejects(call, OpenAI.AuthenticationError);
  assert.deepEqual([error.status, error.code], [401, 'invalid_key']);
  assert.ok(error.error.message, 'no message');
  assert.ok(!JSON.stringify(error.error).includes('not-a-proxy-key'), 'the answer repeats the key');
  assert.equal(error.headers.get('x-should-retry'), 'false');
  assert.equal(sent, 1, 'requests sent');
  assert.deepEqual(await peer.records(tag), [], 'requests at the sandbox');
});

// --- request ids ------------------------------------------------------------

/** [what, response headers] of one call to each endpoint, errors too. */
async function* answers() {
  const model = CHAT;
  const calls = {
    'models.list': () => client().models.list(),
    'models.retrieve': () => client().models.retrieve(CHAT),
    chat: () => chat('Hello'),
    'chat stream': () => chat('Hello', { stream: true }),
    embeddings: () => client().embeddings.create({ model: EMBEDDING, input: 'Hello' }),
    speech: () => client().audio.speech.create({ model: 'tts-1', voice: 'alloy', input: 'Hello' }),
    responses: () => client().responses.create({ model, input: 'Hello' }),
    'files.list': () => client().files.list(),
  };
  for (const [what, call] of Object.entries(calls)) {
    const response = await call().asResponse();
    await response.body.cancel();
    yield [what, response.headers];
  }
  for (const status of [400, 429, 500]) {
    const error = await chat('Hello', {}, { 'x-sandbox': `status=${status}` }).then(() => null, (e) => e);
    assert.ok(error instanceof OpenAI.APIError, `status ${status}: ${error}`);
    assert.equal(error.requestID, error.headers.get('x-request-id'), "the SDK's requestID");
    yield [`status ${status}`, error.headers];
  }
}

async function distinctIds(header) {
  const ids = new Map();
  for await (const [what, headers] of answers()) {
    assert.ok(headers.get(header), `${what}: no ${header}`);
    ids.set(what, headers.get(header));
  }
  assert.equal(new Set(ids.values()).size, ids.size, `distinct values of ${header}: ${[...ids.values()]}`);
}

check(async function request_id_on_every_answer() {
  await distinctIds('x-request-id');
});

relayCheck(async function aiproxy_request_id_on_every_answer() {
  await distinctIds('x-aiproxy-request-id');
});

relayCheck(async function request_ids_on_the_relays_own_refusal() {
  const stranger = client().withOptions({ apiKey: 'not-a-proxy-key' });
  const error = await peer.rejects(stranger.models.list(), OpenAI.AuthenticationError);
  assert.ok(error.headers.get('x-aiproxy-request-id'), 'no x-aiproxy-request-id');
  assert.ok(error.requestID, 'no x-request-id');
});

await peer.run();
