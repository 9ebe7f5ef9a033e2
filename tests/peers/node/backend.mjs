// The page of examples/secret_backend.py in Chromium: sends a text with the secret that its backend mints.
//
//   node backend.mjs PAGE TEXT
//
// Prints what the page shows.

import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { launch } from './chromium.mjs';

const [address, text] = process.argv.slice(2);
assert.ok(address && text, 'usage: backend.mjs PAGE TEXT');
const { context, profile } = await launch();
try {
  const page = await context.newPage();
  await page.goto(address);
  await page.fill('input[name=text]', text);
  await page.click('button');
  await page.waitForFunction(() => document.querySelector('pre').textContent.includes('\n'));
  console.log(await page.textContent('pre'));
} finally {
  await context.close();
  rmSync(profile, { recursive: true, force: true });
}
