//! The files of a journal, as `docs/journal.md` describes them: hostile ones are made with right
//! sums, since no fuzzer guesses a sum, and read again by the book.

use std::collections::HashSet;
use std::time::SystemTime;

use aiproxy_journal::{Position, Saved};
use libfuzzer_sys::arbitrary::{Result, Unstructured};

/// Where records begin.
const HEAD: usize = 64;
/// A slot of a checkpoint.
const SLOT: usize = 64 << 10;
/// A hundred years, in microseconds: a process that far ahead is none.
const CENTURY: u64 = 100 * 365 * 86_400 * 1_000_000;

/// What a reader finds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// In the order of reading.
    pub payloads: Vec<Vec<u8>>,
    /// Files, records and tails that cannot be read.
    pub torn: u64,
}

/// Adds records, with right sums and wrong ones, and what else may stand between them.
///
/// # Errors
/// When the input is used up.
pub fn write(u: &mut Unstructured<'_>, out: &mut Vec<u8>, seed: u32) -> Result<()> {
    for _ in 0..u.int_in_range(0..=6)? {
        let (kind, at) = (u.int_in_range(0..=9)?, out.len());
        let length = u.int_in_range(0..=40)?;
        let payload = u.bytes(length.min(u.len()))?;
        match kind {
            6 => out.extend_from_slice(payload),
            7 => out.resize(at + length, 0),
            kind => {
                let length = if kind == 8 { u.arbitrary()? } else { payload.len() as u32 };
                let flaw = if kind == 9 { u.arbitrary()? } else { 0 };
                out.extend_from_slice(&length.to_le_bytes());
                out.extend_from_slice(&(sum(seed, at, payload) ^ flaw).to_le_bytes());
                out.extend_from_slice(payload);
                out.resize(at + (8 + payload.len()).next_multiple_of(8), 0);
            }
        }
    }
    let (zeros, cut) = (u.int_in_range(0..=20)?, u.int_in_range(0..=9)?);
    out.resize(out.len() + zeros, 0);
    out.truncate(out.len().saturating_sub(cut));
    Ok(())
}

/// Reads records from an offset on.
#[must_use]
pub fn read(bytes: &[u8], start: usize, seed: u32) -> Found {
    let (mut found, mut at) = (Found::default(), start);
    while at < bytes.len() {
        let rest = &bytes[at..];
        let length = rest.first_chunk().map(|word| u32::from_le_bytes(*word) as usize);
        let body = match length {
            Some(0) if rest.iter().all(|byte| *byte == 0) => break,
            Some(length @ 1..) => rest.get(8..8 + length),
            _ => None,
        };
        let Some(payload) = body else {
            found.torn += 1;
            break;
        };
        if u32_at(rest, 4) == sum(seed, at, payload) {
            found.payloads.push(payload.to_vec());
        } else {
            found.torn += 1;
        }
        at += (8 + payload.len()).next_multiple_of(8);
    }
    found
}

fn sum(seed: u32, at: usize, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed ^ (at as u32).rotate_left(16));
    hasher.update(payload);
    hasher.finalize()
}

/// A file that claims to be a segment; few epochs, writers and places, so that they meet.
///
/// # Errors
/// When the input is used up.
pub fn segment(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut bytes = b"AIPXJRNL".to_vec();
    let flaw = u.int_in_range(0..=15u8)?;
    let version = if flaw == 1 { u.arbitrary()? } else { 1 };
    let epoch: u64 = if flaw == 2 { u.arbitrary()? } else { u.int_in_range(0..=1)? };
    let writer = if flaw == 10 { 0 } else { u.int_in_range(1..=2)? };
    let place = if flaw == 3 { u.arbitrary()? } else { u.int_in_range(0..=3)? };
    let [length, serial] = u.arbitrary::<[u32; 2]>()?;
    [version, length].iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
    [epoch, 0, serial.into()].iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
    let seed = crc32fast::hash(&bytes);
    [seed, 0, writer, place].iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
    let stamp = crc32fast::hash(&bytes[40..56]);
    [stamp, 0].iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
    write(u, &mut bytes, seed)?;
    damage(u, &mut bytes, flaw)?;
    Ok(bytes)
}

fn damage(u: &mut Unstructured<'_>, bytes: &mut Vec<u8>, flaw: u8) -> Result<()> {
    match flaw {
        4 | 5 if !bytes.is_empty() => {
            let at = u.choose_index(bytes.len())?;
            bytes[at] ^= u.arbitrary::<u8>()?;
        }
        6 => bytes.truncate(u.int_in_range(0..=bytes.len())?),
        7 => bytes.iter_mut().take(HEAD).for_each(|byte| *byte = 0),
        8 => bytes.fill(0),
        _ => {}
    }
    Ok(())
}

/// What the beginning of a file says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Holds a writer's records.
    Segment {
        /// Epoch, writer, place.
        key: (u64, u32, u32),
        /// Of the records' sums.
        seed: u32,
    },
    /// Nothing is lost with it.
    Unused,
    /// Set aside.
    Unreadable,
}

/// What a file is.
#[must_use]
pub fn kind(bytes: &[u8]) -> Kind {
    let head = match bytes.first_chunk::<HEAD>() {
        None if bytes.is_empty() => return Kind::Unused,
        None => return Kind::Unreadable,
        Some(_) if bytes.iter().all(|byte| *byte == 0) => return Kind::Unused,
        Some(head) => head,
    };
    let seed = u32_at(head, 40);
    let known = head.starts_with(b"AIPXJRNL") && u32_at(head, 8) == 1;
    let (epoch, writer, place) = (u64_at(head, 16), u32_at(head, 48), u32_at(head, 52));
    if !known || seed != crc32fast::hash(&head[..40]) || epoch > latest() {
        Kind::Unreadable
    } else if writer == 0 {
        Kind::Unused
    } else if crc32fast::hash(&head[40..56]) != u32_at(head, 56) || place == u32::MAX {
        Kind::Unreadable
    } else {
        Kind::Segment { key: (epoch, writer, place), seed }
    }
}

/// Leaves one of the files that claim the same place: which of them is read is not said.
pub fn without_doubles(files: &mut Vec<Vec<u8>>) {
    let mut keys = HashSet::new();
    files.retain(|bytes| match kind(bytes) {
        Kind::Segment { key, .. } => keys.insert(key),
        _ => true,
    });
}

/// What a reader finds in a folder that begins behind these positions.
#[must_use]
pub fn folder(files: &[Vec<u8>], consumed: &[Position]) -> Found {
    let mut found = Found::default();
    let mut segments = Vec::new();
    for bytes in files {
        match kind(bytes) {
            Kind::Segment { key, seed } => segments.push((key, seed, bytes)),
            Kind::Unused => {}
            Kind::Unreadable => found.torn += 1,
        }
    }
    segments.sort_by_key(|(key, ..)| *key);
    for ((epoch, writer, place), seed, bytes) in segments {
        let at = consumed.iter().find(|at| (at.epoch, at.writer) == (epoch, writer));
        let start = match at {
            Some(at) if at.place > place => continue,
            Some(at) if at.place == place => at.offset as usize,
            _ => HEAD,
        };
        let read = read(bytes, start, seed);
        found.payloads.extend(read.payloads);
        found.torn += read.torn;
    }
    found
}

/// A checkpoint file that speaks of these files, and what it holds unless it was damaged.
///
/// # Errors
/// When the input is used up.
pub fn checkpoint(u: &mut Unstructured<'_>, files: &[Vec<u8>]) -> Result<(Vec<u8>, Option<Saved>)> {
    let (mut bytes, mut newest) = (Vec::new(), None);
    for slot in 0..u.int_in_range(1..=2)? {
        let wrong = u64::from(u.ratio(1u8, 16)?);
        let number = u.arbitrary::<u64>()? & !1 | slot as u64 ^ wrong;
        let saved = saved(u, files)?;
        bytes.resize(slot * SLOT, 0);
        bytes.extend_from_slice(&slot_of(number, &saved));
        let later = newest.as_ref().is_none_or(|(first, _)| number.wrapping_sub(*first) < 1 << 63);
        if wrong == 0 && later {
            newest = Some((number, saved));
        }
    }
    let flaw = u.int_in_range(4..=12)?;
    if flaw < 7 {
        damage(u, &mut bytes, flaw)?;
        return Ok((bytes, None));
    }
    Ok((bytes, newest.map(|(_, saved)| saved)))
}

fn saved(u: &mut Unstructured<'_>, files: &[Vec<u8>]) -> Result<Saved> {
    let mut positions = Vec::new();
    for _ in 0..u.int_in_range(0..=4)? {
        let known = match files.get(usize::from(u.arbitrary::<u8>()? % 8)).map(|bytes| kind(bytes)) {
            Some(Kind::Segment { key, .. }) => key,
            _ => (u.int_in_range(0..=1)?, 1, u.arbitrary()?),
        };
        let (epoch, writer, place) = known;
        // The place before, this one, or the next.
        let place = place.saturating_add(u.int_in_range(0..=2)?).saturating_sub(1);
        let offset = if u.arbitrary()? { u.int_in_range(0..=25)? * 8 } else { u.arbitrary()? };
        positions.push(Position { epoch, writer, place, offset });
    }
    Ok(Saved { positions, state: u.arbitrary()? })
}

fn slot_of(number: u64, saved: &Saved) -> Vec<u8> {
    let mut body = (saved.positions.len() as u32).to_le_bytes().to_vec();
    for at in &saved.positions {
        body.extend_from_slice(&at.epoch.to_le_bytes());
        [at.writer, at.place, at.offset].iter().for_each(|word| body.extend_from_slice(&word.to_le_bytes()));
    }
    body.extend_from_slice(&saved.state);
    let mut slot = b"AIPXCKPT".to_vec();
    slot.extend_from_slice(&number.to_le_bytes());
    slot.extend_from_slice(&(body.len() as u32).to_le_bytes());
    let sum = crc32fast::hash(&slot[8..]) ^ crc32fast::hash(&body).rotate_left(1);
    slot.extend_from_slice(&sum.to_le_bytes());
    slot.extend_from_slice(&body);
    slot
}

fn latest() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().expect("a clock behind 1970");
    since.as_micros() as u64 + CENTURY
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("eight bytes"))
}
