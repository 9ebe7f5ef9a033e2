// What the Node peer scripts share: the check runner, the sandbox's control
// endpoints, and the memory watch of the relay. The twin of python/peer.py.

import assert from 'node:assert/strict';
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { createReadStream, readFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';

export const CHINESE = '你好，世界！今天天气怎么样？🙂';
export const MIB = 1024 * 1024;

const checks = [];

/** Registers a check under the function's name. */
export function check(run) {
  checks.push({ name: run.name, run, relay: false });
}

/** A check of the relay's own behaviour: skipped when RELAY_PID is unset, that
 * is when AIPROXY_URL names the sandbox itself. */
export function relayCheck(run) {
  checks.push({ name: run.name, run, relay: true });
}

/** Runs the checks named in argv (all when none is) and exits. */
export async function run() {
  const names = process.argv.slice(2);
  if (names.length === 1 && names[0] === '--list') {
    for (const { name, relay } of checks) console.log(relay ? `${name} (relay)` : name);
    return;
  }
  const unknown = names.filter((name) => !checks.some((c) => c.name === name));
  if (unknown.length) refuse(`no such check: ${unknown.join(', ')} (see --list)`);
  const missing = ['AIPROXY_URL', 'AIPROXY_KEY', 'SANDBOX_URL', 'WORK_DIR'].filter((v) => !process.env[v]);
  if (missing.length) refuse(`not set: ${missing.join(', ')} (see README.md)`);

  let passed = 0;
  let failed = 0;
  for (const { name, run, relay } of checks) {
    if (names.length && !names.includes(name)) continue;
    if (relay && !behindRelay()) {
      console.log(`skip ${name}: RELAY_PID is unset`);
      continue;
    }
    try {
      await run();
      passed += 1;
      console.log(`ok ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAIL ${name}: ${error?.name}: ${String(error?.message).replaceAll('\n', ' ')}`);
      console.error(error);
    }
  }
  console.log(`${passed} passed, ${failed} failed`);
  // exitCode, not exit(): stdout may be a pipe that is not drained yet.
  process.exitCode = failed ? 1 : 0;
}

function refuse(message) {
  console.error(message);
  process.exit(1);
}

/** Awaits `promise`, which must reject with exactly class `kind`; returns the error. */
export async function rejects(promise, kind) {
  try {
    await promise;
  } catch (error) {
    if (error?.constructor !== kind) throw error;
    return error;
  }
  throw new assert.AssertionError({ message: `expected ${kind.name}, got no error` });
}

export const relayUrl = () => process.env.AIPROXY_URL.replace(/\/+$/, '');
export const relayKey = () => process.env.AIPROXY_KEY;
export const behindRelay = () => Boolean(process.env.RELAY_PID);

/** A path in WORK_DIR that no other run uses. */
export const workFile = (name) => join(process.env.WORK_DIR, `${randomUUID().slice(0, 8)}-${name}`);

// --- the sandbox's control endpoints ---------------------------------------

/** Headers of one request: an id to find its record by, and a scenario. The id
 * doubles as the gate's name: write `{id}` in the scenario. */
export function tagged(scenario) {
  const tag = randomUUID();
  const headers = { 'x-peer-id': tag };
  if (scenario) headers['x-sandbox'] = scenario.replaceAll('{id}', tag);
  return { tag, headers };
}

async function control(method, path) {
  const url = process.env.SANDBOX_URL.replace(/\/+$/, '') + path;
  const answer = await fetch(url, { method, signal: AbortSignal.timeout(10_000) });
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status}`);
  return answer.text();
}

export const release = (gate) => control('POST', `/sandbox/release/${gate}`);

/** What the sandbox saw of the requests that carried this id. */
export async function records(tag) {
  const seen = JSON.parse(await control('GET', '/sandbox/requests'));
  return seen.filter((r) => r.headers['x-peer-id'] === tag);
}

/** The one record of this id, once it has that outcome. */
export async function record(tag, outcome, seconds = 10) {
  const deadline = performance.now() + seconds * 1000;
  for (;;) {
    const found = await records(tag);
    if (found.length === 1 && found[0].outcome === outcome) return found[0];
    if (performance.now() > deadline) {
      assert.fail(`want one record with outcome ${outcome}, got ${JSON.stringify(found)}`);
    }
    await sleep(50);
  }
}

/** Asserts that the sandbox still holds the rest of this answer back. */
export async function stillOpen(tag) {
  const found = await records(tag);
  assert.deepEqual(found.map((r) => r.outcome), ['open'], 'outcomes while the gate is shut');
}

// --- big files ---------------------------------------------------------------

/** Writes `size` random bytes, returns their sha256. */
export async function randomFile(path, size) {
  const digest = createHash('sha256');
  const file = await open(path, 'w');
  try {
    for (let written = 0; written < size; written += MIB) {
      const block = randomBytes(MIB);
      digest.update(block);
      await file.write(block);
    }
  } finally {
    await file.close();
  }
  return digest.digest('hex');
}

/** sha256 of the parts in order: text as UTF-8, `{ path }` as that file's bytes. */
export async function sha256(...parts) {
  const digest = createHash('sha256');
  for (const part of parts) {
    if (typeof part === 'string') digest.update(part);
    else for await (const block of createReadStream(part.path)) digest.update(block);
  }
  return digest.digest('hex');
}

// --- the relay's memory ------------------------------------------------------

/** [resident, anonymous] KiB of the relay. */
function relayMemory() {
  const status = readFileSync(`/proc/${process.env.RELAY_PID}/status`, 'utf8');
  return ['VmRSS', 'RssAnon'].map((name) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)[1]));
}

// slots: 0 stop flag, 1 samples, 2 peak resident, 3 peak anonymous
const SAMPLER = `
  const { workerData: { pid, slots } } = require('node:worker_threads');
  const { readFileSync } = require('node:fs');
  const kib = (status, name) => Number(new RegExp('^' + name + ':\\\\s+(\\\\d+) kB', 'm').exec(status)[1]);
  while (!Atomics.load(slots, 0)) {
    const status = readFileSync('/proc/' + pid + '/status', 'utf8');
    slots[2] = Math.max(slots[2], kib(status, 'VmRSS'));
    slots[3] = Math.max(slots[3], kib(status, 'RssAnon'));
    Atomics.add(slots, 1, 1);
    Atomics.wait(slots, 0, 0, 2);
  }
`;

/** Samples the relay's resident memory from a thread while `work` runs; its
 * peak may exceed what it was before by less than `limitMib`. Without
 * RELAY_PID it only runs `work`. */
export async function memoryGrowthBelow(limitMib, what, work) {
  if (!behindRelay()) return work();
  const slots = new Int32Array(new SharedArrayBuffer(16));
  const sampler = new Worker(SAMPLER, { eval: true, workerData: { pid: process.env.RELAY_PID, slots } });
  const ended = new Promise((resolve, reject) => sampler.once('exit', resolve).once('error', reject));
  while (Atomics.load(slots, 1) === 0) await Promise.race([sleep(5), ended]);
  const before = relayMemory();
  let result;
  try {
    result = await work();
  } finally {
    Atomics.store(slots, 0, 1);
    Atomics.notify(slots, 0);
    await ended;
  }
  const [growth, anonymous] = before.map((value, i) => Math.max(0, slots[2 + i] - value));
  const samples = slots[1];
  console.log(
    `# ${what}: relay ${before[0]} KiB resident, peak +${growth} KiB (anonymous +${anonymous} KiB), ${samples} samples`,
  );
  assert.ok(samples >= 10, `${what}: only ${samples} memory samples`);
  assert.ok(growth < limitMib * 1024, `${what}: the relay grew by ${growth} KiB, limit ${limitMib} MiB`);
  return result;
}
