// Debian's Chromium, headless, with a profile of its own, no traffic of its own, and a microphone that beeps.

import assert from 'node:assert/strict';
import { accessSync, constants, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { chromium } from 'playwright-core';

/** The browser, wherever it is on the PATH. */
function executable() {
  const paths = process.env.PATH.split(delimiter).map((folder) => join(folder, 'chromium'));
  const there = paths.find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
  assert.ok(there, 'chromium is missing: run `make deps` first');
  return there;
}

/** Starts it, without QUIC unless `args` enable it; its profile is in WORK_DIR, or where temporary files are. */
export async function launch(args = [], mayHear = true) {
  const profile = mkdtempSync(join(process.env.WORK_DIR ?? tmpdir(), 'profile-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: executable(),
    headless: true,
    chromiumSandbox: false,
    ignoreHTTPSErrors: true,
    args: [
      '--disable-gpu',
      '--disable-dev-shm-usage', // Containers have little of it.
      ...(args.includes('--enable-quic') ? [] : ['--disable-quic']),
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--no-proxy-server',
      '--use-fake-device-for-media-stream',
      ...(mayHear ? ['--use-fake-ui-for-media-stream'] : []),
      '--autoplay-policy=no-user-gesture-required',
      ...args,
    ],
  });
  return { context, profile };
}

/**
 * A page from which `url` may be called: the one given, or an empty one of the same origin, which takes no
 * CORS. What it complains about is in `errors`.
 */
export async function openPage(context, url, given) {
  const page = await context.newPage();
  const errors = [];
  page.on('pageerror', (error) => errors.push(String(error)));
  let address = given;
  if (!address) {
    address = new URL('/aiproxy-call-page', url).href;
    await page.route(address, (route) =>
      route.fulfill({ contentType: 'text/html', body: '<!doctype html><title>call</title>' }),
    );
  }
  await page.goto(address);
  return { page, errors };
}
