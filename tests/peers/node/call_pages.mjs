// The pages in examples/ that place calls, in Chromium with its beeping microphone.
//
//   node call_pages.mjs call URL KEY                 # examples/call.html
//   node call_pages.mjs agents URL SECRET            # examples/agents-call.html
//
// URL is the relay's, without a path. `--page` is where the page is served, at an origin that may call; without it
// the page seems to be the relay's own. `--add-model` tells the model where no secret does: in the query. Prints one
// JSON object.

import assert from 'node:assert/strict';
import { readFileSync, rmSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { launch } from './chromium.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    page: { type: 'string' },
    model: { type: 'string', default: 'gpt-realtime' },
    'add-model': { type: 'boolean', default: false },
  },
});
const [which, url, key] = positionals;
const name = { call: 'call.html', agents: 'agents-call.html' }[which];
assert.ok(name && url && key, 'usage: call_pages.mjs call|agents URL KEY');
const TEXT = '你好 one two';

const { context, profile } = await launch();
try {
  const page = await context.newPage();
  const errors = [];
  page.on('pageerror', (error) => errors.push(String(error)));
  const address = values.page ?? `${url}/example-page`;
  if (!values.page) {
    const body = readFileSync(new URL(`../../../examples/${name}`, import.meta.url), 'utf8');
    await page.route(address, (route) => route.fulfill({ contentType: 'text/html', body }));
  }
  // What `npm install` puts beside the page.
  const bundle = new URL('node_modules/@openai/agents-realtime/dist/bundle/openai-realtime-agents.umd.js', import.meta.url);
  await page.route('**/openai-realtime-agents.umd.js', (route) => route.fulfill({ path: bundle.pathname }));
  if (values['add-model']) {
    await page.route(`${url}/v1/realtime/calls`, (route) =>
      route.continue({ url: `${url}/v1/realtime/calls?model=${values.model}` }),
    );
  }
  await page.goto(address);
  const has = (id, text) => page.locator(id, { hasText: text }).waitFor();

  await page.fill('#url', url);
  await page.fill('#key', key);
  await page.fill('#model', values.model);
  await page.click('#call');
  const report = { which };
  const refused = await Promise.race([
    has('#state', 'connected').then(() => false),
    has('#log', 'error').then(() => true),
  ]);
  report.connected = !refused;
  if (!refused) {
    await page.locator('#send:not([disabled])').waitFor();
    await page.fill('#text', TEXT);
    await page.click('#send');
    await has(which === 'call' ? '#answer' : '#history', which === 'call' ? TEXT : `assistant: ${TEXT}`);
    if (which === 'call') {
      await has('#rtt', 'ms');
      // Both meters move: the microphone's beep, and the same as it comes back.
      for (const id of ['level-out', 'level-in']) {
        await page.waitForFunction((id) => document.getElementById(id).value > 0.3, id);
      }
      report.path = await page.textContent('#path');
      report.packets = await page.textContent('#packets');
    }
    await page.click('#hangup');
    if (which === 'call') await has('#log', 'hangup 挂断: 200');
    else await has('#state', 'no call');
  }
  report.log = await page.textContent('#log');
  report.errors = errors;
  assert.ok(!(await page.textContent('body')).includes(key), 'the key is not shown');
  console.log(JSON.stringify(report));
  process.exitCode = refused ? 3 : 0;
} finally {
  await context.close();
  rmSync(profile, { recursive: true, force: true });
}
