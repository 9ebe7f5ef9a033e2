//! `POST /v1/audio/speech` and `/v1/audio/transcriptions`.

use crate::http::{Answer, Piece, RequestBody, event};
use crate::multipart::Multipart;
use crate::route::Call;
use crate::shape::Fault;
use crate::text::{Reply, tokens};
use bytes::Bytes;
use serde_json::json;
use std::iter::once;

/// The longest text that the platform speaks, in characters.
const MAX_INPUT: usize = 4096;
/// Spoken seconds come at 24 kHz, 16 bits, one channel.
const SAMPLE_RATE: u32 = 24_000;
/// A character takes 60 ms.
const SAMPLES_PER_CHAR: u32 = SAMPLE_RATE * 60 / 1000;
/// An MPEG-1 layer III frame of silence: 128 kbit/s, 44.1 kHz, 417 bytes, 26 ms.
const MP3_HEADER: [u8; 4] = [0xff, 0xfb, 0x90, 0x00];
const MP3_FRAME: usize = 417;
/// A form field is at most this long.
const FIELD_LIMIT: usize = 64 << 10;

pub(crate) async fn speech(call: &Call<'_>, body: &mut RequestBody) -> Result<Answer, Fault> {
    let request = body.json().await?;
    let model = super::model(call.state, &request)?;
    let input = request["input"].as_str().ok_or_else(|| Fault::missing("input"))?;
    if request["voice"].is_null() {
        return Err(Fault::missing("voice"));
    }
    let chars = input.chars().count();
    if !(1..=MAX_INPUT).contains(&chars) {
        return Err(
            Fault::bad_request(format!("'input' must be 1 to {MAX_INPUT} characters.")).param("input")
        );
    }
    let chars = chars as u32;
    let cost = tokens(input);
    let answer = match request["response_format"].as_str().unwrap_or("mp3") {
        "mp3" => Answer::stream("audio/mpeg", (0..chars).map(|_| Piece::content(mp3(), 0))),
        "wav" => {
            let header = Piece::framing(wav_header(chars * SAMPLES_PER_CHAR));
            Answer::stream("audio/wav", once(header).chain(samples(chars)))
        }
        "pcm" => Answer::stream("audio/pcm", samples(chars)),
        other => {
            return Err(Fault::bad_request(format!("This sandbox speaks mp3, wav and pcm, not '{other}'."))
                .param("response_format"));
        }
    };
    Ok(answer.usage(model, cost, 0))
}

/// Two frames: 52 ms of silence a character.
fn mp3() -> Bytes {
    let mut frames = vec![0; MP3_FRAME * 2];
    for frame in frames.chunks_mut(MP3_FRAME) {
        frame[..4].copy_from_slice(&MP3_HEADER);
    }
    frames.into()
}

/// A triangle wave of 240 Hz, one piece per character.
fn samples(chars: u32) -> impl Iterator<Item = Piece> + Send {
    (0..chars).map(|char| {
        let first = char * SAMPLES_PER_CHAR;
        let bytes: Vec<u8> = (first..first + SAMPLES_PER_CHAR)
            .flat_map(|n| {
                let phase = (n % 100) as i16;
                let level = (50 - (phase - 50).abs()) * 200 - 5000;
                level.to_le_bytes()
            })
            .collect();
        Piece::content(bytes, 0)
    })
}

fn wav_header(samples: u32) -> Vec<u8> {
    let data = samples * 2;
    let mut header = Vec::with_capacity(44);
    header.extend_from_slice(b"RIFF");
    header.extend_from_slice(&(36 + data).to_le_bytes());
    header.extend_from_slice(b"WAVEfmt ");
    header.extend_from_slice(&16u32.to_le_bytes());
    header.extend_from_slice(&1u16.to_le_bytes());
    header.extend_from_slice(&1u16.to_le_bytes());
    header.extend_from_slice(&SAMPLE_RATE.to_le_bytes());
    header.extend_from_slice(&(SAMPLE_RATE * 2).to_le_bytes());
    header.extend_from_slice(&2u16.to_le_bytes());
    header.extend_from_slice(&16u16.to_le_bytes());
    header.extend_from_slice(b"data");
    header.extend_from_slice(&data.to_le_bytes());
    header
}

pub(crate) async fn transcribe(call: &Call<'_>, body: &mut RequestBody) -> Result<Answer, Fault> {
    let (mut model, mut format, mut streaming, mut file) = (None, None, false, None);
    let mut form = Multipart::new(&call.head.headers, body)?;
    while let Some(part) = form.next_part().await? {
        match part.name.as_str() {
            "file" => {
                let mut bytes = 0;
                while let Some(chunk) = form.chunk().await? {
                    bytes += chunk.len() as u64;
                }
                file = Some((part.filename.unwrap_or_default(), bytes));
            }
            "model" => model = Some(form.text(FIELD_LIMIT).await?),
            "response_format" => format = Some(form.text(FIELD_LIMIT).await?),
            "stream" => streaming = form.text(FIELD_LIMIT).await? == "true",
            // Other fields are skipped by the next `next_part`.
            _ => {}
        }
    }
    let (filename, bytes) = file.ok_or_else(|| Fault::missing("file"))?;
    let model = model.ok_or_else(|| Fault::missing("model"))?;
    call.state.know_model(&model)?;

    let said = format!("{filename}, {bytes} bytes");
    let chunks = call.scenario.chunks;
    let reply = Reply::echo(&said, chunks.filter(|_| streaming), None);
    let (text, output) = (reply.text().to_owned(), reply.tokens());
    // As if the file were 16 kHz, 16 bits, one channel: 32 kB and ten tokens a second.
    let seconds = bytes.div_ceil(32_000);
    let input = seconds * 10;
    let usage = if model == "whisper-1" {
        json!({"type": "duration", "seconds": seconds})
    } else {
        json!({
            "type": "tokens",
            "input_tokens": input,
            "input_token_details": {"text_tokens": 0, "audio_tokens": input},
            "output_tokens": output,
            "total_tokens": input + output,
        })
    };
    if streaming {
        let deltas = reply.into_chunks(chunks).map(|(text, tokens)| {
            let name = "transcript.text.delta";
            let data = json!({"type": name, "delta": text});
            Piece::content(event(Some(name), &data), tokens)
        });
        let name = "transcript.text.done";
        let done = json!({"type": name, "text": text, "usage": usage});
        let done = Piece::framing(event(Some(name), &done));
        return Ok(Answer::events(deltas.chain(once(done))).usage(&model, input, 0));
    }
    let answer = match format.as_deref() {
        Some("text") => Answer::bytes("text/plain; charset=utf-8", format!("{text}\n")),
        Some("verbose_json") => Answer::json(&json!({
            "task": "transcribe", "language": "english", "duration": seconds as f64,
            "text": text, "segments": [], "usage": usage,
        })),
        None | Some("json") => Answer::json(&json!({"text": text, "usage": usage})),
        Some(other) => {
            return Err(Fault::bad_request(format!(
                "This sandbox writes json, verbose_json and text, not '{other}'."
            ))
            .param("response_format"));
        }
    };
    Ok(answer.usage(&model, input, output))
}
