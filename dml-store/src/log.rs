//! The log: a change is durable by one small write and one sync of a file whose length never changes, which costs a
//! disk far less than a transaction of the table (write-ahead logging: Mohan et al. 1992, "ARIES").
//!
//! The file has two halves. While changes are appended to one, those of the other are brought into the table; the time
//! that a half is written for is an epoch, and the table knows the first epoch that it lacks. Frames stand one after the
//! other, each at a multiple of 64 bytes:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | the first eight bytes of the BLAKE3 digest of all that follows |
//! | 8 | epoch |
//! | 4 | number of the frame in its epoch, from 0 |
//! | 4 | how many frames the epoch before has |
//! | 4 | length of the payload |
//! | ... | payload: changes, in postcard |
//!
//! All numbers are little-endian. The last frame may have been cut by a loss of power: nobody was told of it. Damage to
//! any other is noticed by the frames after it.

use std::{io::ErrorKind, sync::Arc};

use dml_core::Digest;

use crate::{
    Disk, DiskFile, StoreError,
    error::Health,
    table::{Changes, MEND},
};

const FILE: &str = "records.log";
/// The file until it is complete.
const NEW_FILE: &str = "records.log.new";
/// What a half holds: some hundred small changes, so that the table takes them in without holding anybody up.
pub(crate) const HALF: u64 = 256 << 10;
const HEAD: usize = 28;
const ALIGNMENT: u64 = 64;

pub(crate) struct Log {
    disk: Arc<dyn Disk>,
    health: Arc<Health>,
    file: Arc<dyn DiskFile>,
    epoch: u64,
    /// Where the next frame goes in the half of this epoch, and its number.
    offset: u64,
    frames: u32,
    /// How many frames the epoch before has.
    before: u32,
}

/// What one epoch has left.
struct Found {
    changes: Vec<Changes>,
    before: u32,
}

impl Log {
    /// Makes an empty log, in place of one that is there, which begins with this epoch.
    pub(crate) fn create(disk: Arc<dyn Disk>, health: Arc<Health>, epoch: u64) -> Result<Self, StoreError> {
        let at = |error| StoreError::io(disk.place(FILE), error);
        let file = disk.create(NEW_FILE).map_err(at)?;
        file.write_at(0, &vec![0; 2 * HALF as usize]).map_err(at)?;
        health.synced(|| disk.place(NEW_FILE), file.sync())?;
        disk.rename(NEW_FILE, FILE).map_err(at)?;
        health.synced(|| disk.place(""), disk.sync_dir(""))?;
        Ok(Self { disk, health, file, epoch, offset: 0, frames: 0, before: 0 })
    }

    /// Opens the log of a table that awaits this epoch. Gives what the table lacks, in order; after it is in the table,
    /// [`Self::turn`] is called before anything is appended.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        health: Arc<Health>,
        epoch: u64,
    ) -> Result<(Self, Vec<Changes>), StoreError> {
        let file = disk.open(FILE).map_err(|error| {
            let is_gone = error.kind() == ErrorKind::NotFound;
            if is_gone { corrupt(&*disk, "it is gone") } else { StoreError::io(disk.place(FILE), error) }
        })?;
        let mut log = Self { disk, health, file, epoch, offset: 0, frames: 0, before: 0 };
        if log.file.length().map_err(|error| log.io(error))? != 2 * HALF {
            return Err(log.corrupt("it is not as long as it was made"));
        }
        let first = log.read(epoch)?;
        let second = log.read(epoch + 1)?;
        log.frames = first.changes.len() as u32;
        let mut changes = first.changes;
        if !second.changes.is_empty() {
            if second.before != log.frames {
                return Err(log.corrupt("changes are missing in it"));
            }
            log.epoch += 1;
            log.frames = second.changes.len() as u32;
            changes.extend(second.changes);
        }
        Ok((log, changes))
    }

    /// What an epoch has left in its half.
    fn read(&self, epoch: u64) -> Result<Found, StoreError> {
        let mut half = vec![0; HALF as usize];
        self.file.read_at(start(epoch), &mut half).map_err(|error| self.io(error))?;
        let mut found = Found { changes: Vec::new(), before: 0 };
        let mut rest = half.as_slice();
        while let Some((frame, payload)) = Frame::parse(rest, epoch)
            && frame.number == found.changes.len() as u32
        {
            let changes = postcard::from_bytes(payload);
            found.changes.push(changes.map_err(|_| self.corrupt("a change in it cannot be read"))?);
            found.before = frame.before;
            rest = rest.get(padded(HEAD + payload.len())..).unwrap_or_default();
        }
        // After a frame that was cut there is none.
        let step = ALIGNMENT as usize;
        let later = (step..rest.len()).step_by(step).filter_map(|at| Frame::parse(&rest[at..], epoch));
        match later.into_iter().next() {
            Some(_) => Err(self.corrupt("a change in the middle of it is not what was written")),
            None => Ok(found),
        }
    }

    /// The bytes of a frame with these changes; none if it is larger than a half.
    pub(crate) fn frame(&self, changes: &Changes) -> Option<Vec<u8>> {
        let mut frame = vec![0; HEAD];
        frame = postcard::to_extend(changes, frame).expect("maps of bytes can be written");
        let length = frame.len() - HEAD;
        frame.resize(padded(frame.len()), 0);
        if frame.len() as u64 > HALF {
            return None;
        }
        frame[24..28].copy_from_slice(&(length as u32).to_le_bytes());
        Some(frame)
    }

    /// Whether a frame has room in the half of this epoch.
    pub(crate) fn has_room(&self, frame: &[u8]) -> bool {
        self.offset + frame.len() as u64 <= HALF
    }

    /// Appends a frame; it is durable on return.
    pub(crate) fn append(&mut self, mut frame: Vec<u8>) -> Result<(), StoreError> {
        self.health.check()?;
        frame[8..16].copy_from_slice(&self.epoch.to_le_bytes());
        frame[16..20].copy_from_slice(&self.frames.to_le_bytes());
        frame[20..24].copy_from_slice(&self.before.to_le_bytes());
        let length = u32::from_le_bytes(frame[24..28].try_into().expect("four bytes")) as usize;
        let seal = seal(&frame[8..HEAD + length]);
        frame[..8].copy_from_slice(&seal);
        self.file.write_at(start(self.epoch) + self.offset, &frame).map_err(|error| self.io(error))?;
        self.health.synced(|| self.disk.place(FILE), self.file.sync())?;
        self.offset += frame.len() as u64;
        self.frames += 1;
        Ok(())
    }

    /// The epoch that is being written.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Begins the next epoch, in the other half: all that this one held before must be in the table.
    pub(crate) fn turn(&mut self) {
        self.epoch += 1;
        (self.before, self.frames, self.offset) = (self.frames, 0, 0);
    }

    fn io(&self, error: std::io::Error) -> StoreError {
        StoreError::io(self.disk.place(FILE), error)
    }

    fn corrupt(&self, what: &str) -> StoreError {
        corrupt(&*self.disk, what)
    }
}

fn corrupt(disk: &dyn Disk, what: &str) -> StoreError {
    StoreError::Corrupt { path: disk.place(FILE), what: what.into(), mend: MEND }
}

/// Of the head of a frame, what is needed to put it into its place.
struct Frame {
    number: u32,
    before: u32,
}

impl Frame {
    /// The frame of this epoch at the start of some bytes, if there is one, whole.
    fn parse(bytes: &[u8], epoch: u64) -> Option<(Self, &[u8])> {
        let head = bytes.get(..HEAD)?;
        if head[8..16] != epoch.to_le_bytes() {
            return None;
        }
        let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let payload = bytes[HEAD..].get(..number(24) as usize)?;
        let whole = seal(&bytes[8..HEAD + payload.len()]) == head[..8];
        whole.then(|| (Self { number: number(16), before: number(20) }, payload))
    }
}

fn seal(bytes: &[u8]) -> [u8; 8] {
    Digest::of(bytes).seed().to_le_bytes()
}

/// Where the half of an epoch starts.
fn start(epoch: u64) -> u64 {
    epoch % 2 * HALF
}

fn padded(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT as usize)
}
