// A caller in Chromium, with a plain RTCPeerConnection: places a call, sends a tone and messages, and prints one
// JSON object of what came back. The twin of python/call.py.
//
//   node call.mjs http://127.0.0.1:8080/v1/realtime/calls?model=gpt-realtime --key pk_… --seconds 3
//
// The exit code is 0 when the call was connected, 3 when the offer was refused, 1 for everything else.

import { rmSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { launch, openPage } from './chromium.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    key: { type: 'string' },
    header: { type: 'string', multiple: true, default: [] }, // NAME: VALUE
    session: { type: 'string' }, // JSON: the offer goes as a form
    page: { type: 'string' }, // a page of another origin, from which the call is placed
    mdns: { type: 'boolean', default: false }, // local addresses hidden as .local names, as without a microphone
    microphone: { type: 'boolean', default: false }, // the browser's own in place of a tone of 440 Hz
    'no-audio': { type: 'boolean', default: false },
    video: { type: 'boolean', default: false }, // a camera besides
    early: { type: 'boolean', default: false }, // the offer goes out before candidates are known
    loopback: { type: 'boolean', default: false }, // candidates of the loopback interface too
    codec: { type: 'string', multiple: true, default: [] }, // opus, PCMU, PCMA, G722
    channel: { type: 'string', multiple: true, default: [] }, // LABEL[,OPTION=VALUE…] as in call.py
    messages: { type: 'string', default: '10' }, // on each channel, texts and bytes in turn
    big: { type: 'string', multiple: true, default: [] }, // size of a message sent besides
    say: { type: 'string' }, // events: this text, and a response to it
    seconds: { type: 'string', default: '3' },
    setup: { type: 'string', default: '20' }, // seconds until a connection is given up
    end: { type: 'string', default: 'leave' }, // leave, hangup, stay, vanish
    sdp: { type: 'boolean', default: false },
  },
});
const [url] = positionals;
if (!url) throw new Error('the URL for the offer is missing');

const headers = Object.fromEntries(
  values.header.map((line) => [line.slice(0, line.indexOf(':')).trim(), line.slice(line.indexOf(':') + 1).trim()]),
);
if (values.key) headers.Authorization = `Bearer ${values.key}`;
const options = {
  url,
  headers,
  session: values.session ?? null,
  microphone: values.microphone,
  audio: !values['no-audio'],
  video: values.video,
  early: values.early,
  codecs: values.codec,
  channels: values.channel.map((text) => {
    const [label, ...rest] = text.split(',');
    const wishes = Object.fromEntries(rest.map((pair) => pair.split('=')));
    const init = {};
    if (wishes.ordered) init.ordered = wishes.ordered === '1';
    if (wishes.protocol) init.protocol = wishes.protocol;
    if (wishes.maxRetransmits) init.maxRetransmits = Number(wishes.maxRetransmits);
    if (wishes.maxPacketLifeTime) init.maxPacketLifeTime = Number(wishes.maxPacketLifeTime);
    return { label, init };
  }),
  messages: Number(values.messages),
  big: values.big.map(Number),
  say: values.say ?? null,
  seconds: Number(values.seconds),
  setup: Number(values.setup),
  end: values.end,
};

/** Runs in the page. */
async function place(options) {
  const began = performance.now();
  const report = { times: {}, states: [], channels: [], opened_there: [] };
  const mark = (what) => (report.times[what] ??= Math.round(performance.now() - began));
  const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  const connection = new RTCPeerConnection();
  let ended;
  const end = new Promise((resolve) => (ended = resolve));
  connection.onconnectionstatechange = () => {
    report.states.push(connection.connectionState);
    mark(connection.connectionState);
    if (['disconnected', 'failed', 'closed'].includes(connection.connectionState)) ended();
  };

  // A tone, or the microphone.
  const sound = new AudioContext({ sampleRate: 48_000 });
  if (options.audio) {
    let stream;
    if (options.microphone) {
      stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    } else {
      const tone = new OscillatorNode(sound, { frequency: 440 });
      const destination = new MediaStreamAudioDestinationNode(sound);
      tone.connect(new GainNode(sound, { gain: 0.4 })).connect(destination);
      tone.start();
      stream = destination.stream;
    }
    const sender = connection.addTrack(stream.getAudioTracks()[0], stream);
    if (options.codecs.length) {
      const rank = options.codecs.map((name) => `audio/${name}`.toLowerCase());
      const known = RTCRtpReceiver.getCapabilities('audio').codecs;
      const at = (codec) => rank.indexOf(codec.mimeType.toLowerCase());
      const transceiver = connection.getTransceivers().find((one) => one.sender === sender);
      transceiver.setCodecPreferences(known.filter((codec) => at(codec) >= 0).sort((a, b) => at(a) - at(b)));
    }
  }
  if (options.video) {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { width: 320, height: 240, frameRate: 15 } });
    connection.addTrack(stream.getVideoTracks()[0], stream);
  }

  // What comes back, as an ear on the page hears it.
  const ears = [];
  connection.ontrack = ({ track, streams }) => {
    mark(`track ${track.kind}`);
    const stream = streams[0] ?? new MediaStream([track]);
    const player = document.createElement(track.kind);
    Object.assign(player, { srcObject: stream, autoplay: true, muted: true });
    document.body.append(player);
    player.play().catch(() => {});
    if (track.kind !== 'audio') return;
    const analyser = new AnalyserNode(sound, { fftSize: 16_384, smoothingTimeConstant: 0 });
    new MediaStreamAudioSourceNode(sound, { mediaStream: stream }).connect(analyser);
    ears.push(analyser);
  };
  const peaks = [];
  const listening = setInterval(() => {
    for (const ear of ears) {
      const levels = new Float32Array(ear.frequencyBinCount);
      ear.getFloatFrequencyData(levels);
      const loudest = levels.indexOf(Math.max(...levels));
      // In dB; below it is silence and what is left of encoding it.
      if (levels[loudest] > -60) {
        mark('sound');
        peaks.push((loudest * sound.sampleRate) / ear.fftSize);
      }
    }
  }, 100);

  // Data channels: what is sent and comes back.
  const same = (a, b) => a === b || (a.byteLength === b.byteLength && new Uint8Array(a).every((x, i) => x === new Uint8Array(b)[i]));
  const hear = (channel, list) => {
    channel.binaryType = 'arraybuffer';
    const one = { channel, sent: [], received: [], events: [], closed: false };
    list.push(one);
    const send = (message) => {
      one.sent.push(message);
      channel.send(message);
    };
    let open = false;
    const opened = () => {
      if (open) return; // A channel of the other side tells it twice.
      open = true;
      mark(`open ${channel.label}`);
      for (let i = 0; i < options.messages; i += 1) {
        const text = `${channel.label} ${i} 你好`;
        send(i % 2 === 0 ? text : new TextEncoder().encode(text).buffer);
      }
      for (const size of options.big) send(Uint8Array.from({ length: size }, (_, i) => i * 7).buffer);
    };
    channel.onopen = opened;
    if (channel.readyState === 'open') opened();
    channel.onclose = () => {
      one.closed = true;
      ended();
    };
    channel.onmessage = ({ data }) => {
      if (typeof data !== 'string' || !data.startsWith('{')) {
        one.received.push(data);
        return;
      }
      const event = JSON.parse(data);
      one.events.push(event);
      if (event.type !== 'session.created' || options.say === null) return;
      const content = [{ type: 'input_text', text: options.say }];
      for (const said of [
        { type: 'session.update', session: { type: 'realtime', instructions: options.say } },
        { type: 'conversation.item.create', item: { type: 'message', role: 'user', content } },
        { type: 'response.create' },
      ]) channel.send(JSON.stringify(said));
    };
  };
  const [ours, theirs] = [[], []];
  connection.ondatachannel = ({ channel }) => hear(channel, theirs);
  for (const { label, init } of options.channels) hear(connection.createDataChannel(label, init), ours);

  // The offer, and the answer.
  await connection.setLocalDescription();
  if (!options.early) {
    await new Promise((resolve) => {
      const gathered = () => connection.iceGatheringState === 'complete' && resolve();
      connection.onicegatheringstatechange = gathered;
      gathered();
    });
  }
  mark('offer');
  report.offer = connection.localDescription.sdp;
  report.candidates = report.offer.split('\r\n').filter((line) => line.startsWith('a=candidate:'));
  let body = report.offer;
  const headers = { ...options.headers };
  if (options.session === null) {
    headers['Content-Type'] = 'application/sdp';
  } else {
    body = new FormData();
    body.set('sdp', report.offer);
    body.set('session', options.session);
  }
  let answer;
  try {
    answer = await fetch(options.url, { method: 'POST', body, headers });
  } catch (error) {
    connection.close();
    return { ...report, error: String(error) };
  }
  mark('answer');
  const text = await answer.text();
  Object.assign(report, { status: answer.status, location: answer.headers.get('Location'), answer: text });
  if (!answer.ok) {
    connection.close();
    return { ...report, error: text };
  }
  await connection.setRemoteDescription({ type: 'answer', sdp: text });
  for (let waited = 0; connection.connectionState !== 'connected' && waited < options.setup; waited += 0.05) await sleep(0.05);
  report.connected = connection.connectionState === 'connected';
  await sleep(options.seconds);

  // What the browser counted.
  const stats = await connection.getStats();
  const codec = (one) => stats.get(one.codecId)?.mimeType;
  stats.forEach((one) => {
    if (one.type === 'inbound-rtp') {
      report[`in_${one.kind}`] = { packets: one.packetsReceived, lost: one.packetsLost, jitter: one.jitter,
        codec: codec(one), frames: one.framesDecoded };
    } else if (one.type === 'outbound-rtp') {
      report[`out_${one.kind}`] = { packets: one.packetsSent, codec: codec(one) };
    } else if (one.type === 'remote-inbound-rtp') {
      report[`remote_${one.kind}`] = { lost: one.packetsLost, rtt: one.roundTripTime };
    } else if (one.type === 'candidate-pair' && one.nominated) {
      const [local, remote] = [stats.get(one.localCandidateId), stats.get(one.remoteCandidateId)];
      report.pair = { rtt: one.currentRoundTripTime, local: local?.candidateType, remote: remote?.candidateType,
        protocol: remote?.protocol, address: remote?.address, port: remote?.port };
    } else if (one.type === 'transport') {
      report.transport = { dtls: one.tlsVersion, cipher: one.dtlsCipher, srtp: one.srtpCipher, role: one.dtlsRole };
    }
  });
  clearInterval(listening);
  peaks.sort((a, b) => a - b);
  report.frequency = peaks.length ? peaks[peaks.length >> 1] : null;
  report.directions = connection.getTransceivers().map((one) => [one.receiver.track.kind, one.currentDirection]);
  if (options.end === 'hangup') {
    const target = `${new URL(report.location, options.url).href}/hangup`;
    report.hangup = (await fetch(target, { method: 'POST', headers: options.headers })).status;
  }
  if (['hangup', 'stay'].includes(options.end)) {
    // A closed channel tells it at once, silence after a while.
    await Promise.race([end.then(() => mark('ended')), sleep(30)]);
  }
  const told = ({ channel, sent, received, events, closed }) => ({
    label: channel.label, protocol: channel.protocol, ordered: channel.ordered,
    maxRetransmits: channel.maxRetransmits, maxPacketLifeTime: channel.maxPacketLifeTime,
    sent: sent.length, received: received.length,
    same: sent.length === received.length && sent.every((message, i) => same(message, received[i])),
    events: events.map((event) => event.type),
    said: events.filter((event) => event.type === 'response.output_text.delta').map((event) => event.delta).join(''),
    session: events.find((event) => event.type === 'session.created')?.session ?? null,
    usage: events.find((event) => event.type === 'response.done')?.response.usage ?? null,
    closed,
  });
  report.channels = ours.map(told);
  report.opened_there = theirs.map(told);
  report.state = connection.connectionState;
  if (options.end !== 'vanish') connection.close();
  return report;
}

// Pages that may use the microphone see the addresses.
const { context, profile } = await launch(values.loopback ? ['--allow-loopback-in-peer-connection'] : [], !values.mdns);
try {
  const { page, errors } = await openPage(context, url, values.page);
  const report = await page.evaluate(place, options);
  report.errors = errors;
  if (!values.sdp) {
    delete report.offer;
    delete report.answer;
  }
  console.log(JSON.stringify(report));
  process.exitCode = report.connected ? 0 : report.status >= 400 ? 3 : 1;
} finally {
  await context.close();
  rmSync(profile, { recursive: true, force: true });
}
