//! The file that says what has been consumed.
//!
//! Two slots of fixed size, written in turn: a slot that was written in part has a wrong sum, and
//! then the other one holds. The file never grows, so that a full disk cannot keep a reader from
//! saying that segments may be deleted, which is what makes room.
//!
//! ```text
//!  0.. 8  magic "AIPXCKPT"
//!  8..16  number, u64, rising, 0 behind the last; even ones in the first slot; the later one holds
//! 16..20  length of the body, u32
//! 20..24  CRC-32 of number, length and body
//! 24..    body: count u32; count × (epoch u64, writer u32, place u32, offset u32); the consumer's own bytes
//! ```

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::reader::{Position, Positions};
use crate::record::checksum;

const MAGIC: &[u8; 8] = b"AIPXCKPT";
const SLOT: usize = 64 * 1024;
const HEAD: usize = 24;
const ENTRY: usize = 20;

/// What a checkpoint holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Saved {
    /// Consumed up to here.
    pub positions: Positions,
    /// The consumer's own state, of the same moment.
    pub state: Vec<u8>,
}

/// One consumer's checkpoint file.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    /// None until the first save: a full disk must not keep the program from starting.
    file: Option<File>,
    number: u64,
    scratch: Vec<u8>,
}

impl Checkpoint {
    /// Opens `name.checkpoint` in the folder; gives what it holds, if it is there.
    ///
    /// # Errors
    /// When the file exists and cannot be read. One without a valid slot is set aside as
    /// `name.checkpoint.bad` and reported in the process log.
    pub fn open(folder: &Path, name: &str) -> io::Result<(Self, Option<Saved>)> {
        let path = folder.join(format!("{name}.checkpoint"));
        let mut checkpoint = Self { path, file: None, number: 0, scratch: Vec::new() };
        let bytes = match std::fs::read(&checkpoint.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((checkpoint, None)),
            Err(error) => return Err(error),
        };
        // In a slot of its own, each number is replaced by the one behind the next.
        let own = |(slot, bytes)| decode(bytes).filter(|(number, _)| number % 2 == slot);
        let later = |one: &u64, other: &u64| one.wrapping_sub(*other) < 1 << 63;
        let newest = (0..).zip(bytes.chunks(SLOT).take(2)).filter_map(own);
        let newest = newest.reduce(|one, other| if later(&other.0, &one.0) { other } else { one });
        let Some((number, saved)) = newest else {
            if bytes.iter().any(|byte| *byte != 0) {
                tracing::error!(path = %checkpoint.path.display(), "the checkpoint is damaged: what the journal still holds is read again");
                std::fs::rename(&checkpoint.path, checkpoint.path.with_extension("checkpoint.bad"))?;
            }
            return Ok((checkpoint, None));
        };
        checkpoint.number = number;
        Ok((checkpoint, Some(saved)))
    }

    /// Replaces what the checkpoint holds. On return it is on disk.
    ///
    /// # Errors
    /// When the file cannot be made or written, or the content is longer than a slot; the
    /// checkpoint then holds what it held before.
    pub fn save(&mut self, positions: &[Position], state: &[u8]) -> io::Result<()> {
        let number = self.number.wrapping_add(1);
        encode(&mut self.scratch, number, positions, state);
        if self.scratch.len() > SLOT {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the checkpoint is longer than its slot",
            ));
        }
        let file = match self.file.take().filter(|file| is_at(file, &self.path)) {
            Some(file) => file,
            None => create(&self.path)?,
        };
        let slot = number % 2 * SLOT as u64;
        let written = file.write_all_at(&self.scratch, slot).and_then(|()| file.sync_data());
        // After an error the file is opened anew: a folder may have come back.
        written?;
        self.file = Some(file);
        self.number = number;
        Ok(())
    }
}

/// Whether this is still the file at the path: its folder may have been removed or replaced.
fn is_at(file: &File, path: &Path) -> bool {
    let of = |metadata: io::Result<std::fs::Metadata>| metadata.map(|found| (found.dev(), found.ino()));
    matches!((of(file.metadata()), of(std::fs::metadata(path))), (Ok(mine), Ok(there)) if mine == there)
}

/// Opens the file, at its full length from the beginning.
fn create(path: &Path) -> io::Result<File> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o640).open(path)?;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if length < 2 * SLOT {
        file.write_all_at(&vec![0; 2 * SLOT - length], length as u64)?;
        file.sync_all()?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
    }
    Ok(file)
}

fn encode(out: &mut Vec<u8>, number: u64, positions: &[Position], state: &[u8]) {
    out.clear();
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&(positions.len() as u32).to_le_bytes());
    for position in positions {
        out.extend_from_slice(&position.epoch.to_le_bytes());
        for number in [position.writer, position.place, position.offset] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
    out.extend_from_slice(state);
    let length = (out.len() - HEAD) as u32;
    out[16..20].copy_from_slice(&length.to_le_bytes());
    let sum = slot_sum(out);
    out[20..24].copy_from_slice(&sum.to_le_bytes());
}

fn slot_sum(slot: &[u8]) -> u32 {
    checksum(&slot[8..20]) ^ checksum(&slot[HEAD..]).rotate_left(1)
}

fn decode(slot: &[u8]) -> Option<(u64, Saved)> {
    if slot.get(..8)? != MAGIC {
        return None;
    }
    let number = u64::from_le_bytes(*slot.get(8..)?.first_chunk()?);
    let length = u32_at(slot, 16)? as usize;
    let slot = slot.get(..HEAD + length)?;
    if slot_sum(slot) != u32_at(slot, 20)? {
        return None;
    }
    let body = &slot[HEAD..];
    let count = u32_at(body, 0)? as usize;
    let entries = body.get(4..4 + count.checked_mul(ENTRY)?)?;
    let positions = entries.chunks_exact(ENTRY).filter_map(|entry| {
        Some(Position {
            epoch: u64::from_le_bytes(*entry.first_chunk()?),
            writer: u32_at(entry, 8)?,
            place: u32_at(entry, 12)?,
            offset: u32_at(entry, 16)?,
        })
    });
    Some((number, Saved { positions: positions.collect(), state: body[4 + entries.len()..].to_vec() }))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions(offset: u32) -> Positions {
        vec![
            Position { epoch: 5, writer: 1, place: 2, offset },
            Position { epoch: 6, writer: 3, place: 0, offset: 64 },
        ]
    }

    #[test]
    fn the_last_save_holds() {
        let folder = tempfile::tempdir().unwrap();
        let (mut checkpoint, saved) = Checkpoint::open(folder.path(), "log").unwrap();
        assert_eq!(saved, None);
        for offset in 1..6 {
            checkpoint.save(&positions(offset), b"state").unwrap();
            let (_, saved) = Checkpoint::open(folder.path(), "log").unwrap();
            assert_eq!(saved, Some(Saved { positions: positions(offset), state: b"state".to_vec() }));
        }
    }

    #[test]
    fn a_save_torn_at_any_byte_leaves_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.checkpoint");
        let (mut checkpoint, _) = Checkpoint::open(folder.path(), "log").unwrap();
        for offset in [1, 2, 3] {
            checkpoint.save(&positions(offset), b"old").unwrap();
        }
        let before = std::fs::read(&path).unwrap();
        checkpoint.save(&positions(4), b"new state").unwrap();
        let after = std::fs::read(&path).unwrap();
        let changed: Vec<usize> = (0..after.len()).filter(|at| before[*at] != after[*at]).collect();
        for end in &changed {
            let mut torn = before.clone();
            torn[..*end].copy_from_slice(&after[..*end]);
            std::fs::write(&path, &torn).unwrap();
            let saved = Checkpoint::open(folder.path(), "log").unwrap().1.unwrap();
            assert_eq!(saved.positions, positions(3), "torn at {end}");
        }
    }

    #[test]
    fn damage_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("log.checkpoint"), b"something else").unwrap();
        let (mut checkpoint, saved) = Checkpoint::open(folder.path(), "log").unwrap();
        assert_eq!(saved, None);
        assert!(folder.path().join("log.checkpoint.bad").exists());
        checkpoint.save(&positions(9), b"").unwrap();
        assert!(Checkpoint::open(folder.path(), "log").unwrap().1.is_some());
    }

    #[test]
    fn numbers_begin_anew_behind_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.checkpoint");
        let mut slot = Vec::new();
        encode(&mut slot, u64::MAX - 1, &positions(1), b"");
        std::fs::write(&path, &slot).unwrap();
        let (mut checkpoint, saved) = Checkpoint::open(folder.path(), "log").unwrap();
        assert_eq!(saved.unwrap().positions, positions(1));
        for offset in 2..6 {
            checkpoint.save(&positions(offset), b"").unwrap();
            let (again, saved) = Checkpoint::open(folder.path(), "log").unwrap();
            assert_eq!(saved.unwrap().positions, positions(offset));
            assert_eq!(again.number, checkpoint.number);
        }
        assert_eq!(checkpoint.number, 2);
    }

    #[test]
    fn a_number_in_the_other_slot_is_damage() {
        let folder = tempfile::tempdir().unwrap();
        let mut slot = Vec::new();
        encode(&mut slot, 7, &positions(1), b"");
        std::fs::write(folder.path().join("log.checkpoint"), &slot).unwrap();
        assert_eq!(Checkpoint::open(folder.path(), "log").unwrap().1, None);
    }

    #[test]
    fn too_much_is_refused_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (mut checkpoint, _) = Checkpoint::open(folder.path(), "log").unwrap();
        checkpoint.save(&positions(1), b"").unwrap();
        assert!(checkpoint.save(&positions(2), &vec![0; SLOT]).is_err());
        assert_eq!(Checkpoint::open(folder.path(), "log").unwrap().1.unwrap().positions, positions(1));
    }
}
