// The API's page in a browser: signs in, sends a request, switches the language, and asks nobody else.
//
// ADMIN_URL, ADMIN_PASSWORD: where and with what. WORK_DIR: for the browser's profile.

import assert from 'node:assert/strict';
import { launch } from './chromium.mjs';

const origin = new URL(process.env.ADMIN_URL).origin;
const { context } = await launch();
try {
  const page = await context.newPage();
  const complaints = [];
  const strangers = [];
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('console', (said) => said.type() === 'error' && complaints.push(said.text()));
  page.on('request', (request) => {
    if (new URL(request.url()).origin !== origin) strangers.push(request.url());
  });

  await page.goto(`${origin}/api`);
  await page.fill('#name', 'admin');
  await page.fill('#password', process.env.ADMIN_PASSWORD);
  await page.click('#login button');
  await page.waitForSelector('#operations:not([hidden])');
  assert.match(await page.textContent('#who'), /admin/);

  // One operation, and its answer with a Chinese name.
  const users = page.locator('details', { has: page.locator('summary code', { hasText: /^\/api\/v1\/users$/ }) }).first();
  await users.locator('summary').click();
  await users.locator('form button').first().click();
  await page.waitForFunction(() => document.body.textContent.includes('张三'));

  if ((await page.evaluate(() => document.documentElement.lang)) !== 'zh') await page.click('#language');
  await page.waitForFunction(() => document.title === 'AIProxy 管理接口');
  assert.match(await page.textContent('#list'), /用户组/);

  await page.click('#logout');
  await page.waitForSelector('#login:not([hidden])');
  assert.deepEqual(strangers, []);
  assert.deepEqual(complaints.filter((text) => !text.includes('401')), []);
  assert.equal(await page.evaluate(() => document.cookie), '', 'scripts do not see the session');
  console.log('ok');
} finally {
  await context.close();
}
