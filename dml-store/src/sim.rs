//! A disk in memory that fails as real ones do: it forgets what was not synced when the power goes, tears writes at
//! sectors, fills up, turns read-only, rots, and refuses to sync.
//!
//! Everything that happens follows from the seed and the calls, so a failure can be replayed. [`SimDisk`] is a handle:
//! clones are the same disk, so a test keeps one and gives another to [`crate::DiskStore::on`].
//!
//! What is left after the power went: for each file, the bytes that were last synced, with any part of the writes
//! since; for each directory, the names that were last synced, with any part of the changes since. That is harsher
//! than journaling file systems, which keep the order of changes to names.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::{self, ErrorKind},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dml_core::rng;

use crate::{Disk, DiskFile, Entry, Room};

const SECTOR: usize = 512;

/// A simulated disk; clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    seed: u64,
    draws: u64,
    now: Duration,
    names: BTreeMap<String, Node>,
    unsynced_names: Vec<Renaming>,
    files: BTreeMap<u64, File>,
    next_file: u64,
    locks: BTreeSet<String>,
    /// Grows with each restart: what was open before is of no use after.
    era: u64,
    power: Power,
    changes: u64,
    capacity: Option<u64>,
    read_only: bool,
    syncs_fail: bool,
    syncs_lie: bool,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum Power {
    #[default]
    On,
    /// It goes during the last of so many changes.
    Left(u64),
    Off,
}

#[derive(Clone, Copy, PartialEq)]
enum Node {
    Dir,
    File(u64),
}

/// A change to a directory that the disk may forget.
struct Renaming {
    path: String,
    before: Option<Node>,
    after: Option<Node>,
}

#[derive(Default)]
struct File {
    bytes: Vec<u8>,
    written: Duration,
    unsynced: Vec<Change>,
}

/// A change to a file that the disk may forget, with what it takes to undo it.
struct Change {
    length_before: usize,
    /// What was at `at` before.
    old: Vec<u8>,
    at: usize,
    what: What,
}

enum What {
    Write(Vec<u8>),
    Length(usize),
}

impl SimDisk {
    /// An empty disk. The seed decides what is left after the power goes.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State { seed, ..State::default() })))
    }

    /// Lets the power go during the `changes`-th change from now (writes, syncs, names). Everything fails from then
    /// on, until [`Self::restart`] or, if it was the process alone that ended there, [`Self::kill`].
    pub fn cut_power_after(&self, changes: u64) {
        self.state().power = Power::Left(changes.max(1));
    }

    /// Whether the power went.
    pub fn is_off(&self) -> bool {
        self.state().power == Power::Off
    }

    /// The machine starts again: what was not synced is lost, wholly or in part, and no file is open any more.
    pub fn restart(&self) {
        self.state().restart();
    }

    /// The process ends and the machine goes on: no file is open any more, but what was not synced is still seen,
    /// and may be lost later.
    pub fn kill(&self) {
        self.state().end_process();
    }

    /// How many changes there have been: the moments at which the power could have gone.
    pub fn changes(&self) -> u64 {
        self.state().changes
    }

    /// Lets time pass, for the ages of files.
    pub fn pass(&self, time: Duration) {
        self.state().now += time;
    }

    /// Limits the space for the bytes of files; `None` for no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// How many bytes the files have together.
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// Refuses all changes, as a file system does after an error.
    pub fn set_read_only(&self, read_only: bool) {
        self.state().read_only = read_only;
    }

    /// Lets every sync fail.
    pub fn fail_syncs(&self, fail: bool) {
        self.state().syncs_fail = fail;
    }

    /// Lets every sync say that it was done when it was not: a planted fault that tests of durability must catch.
    pub fn lie_about_syncs(&self, lie: bool) {
        self.state().syncs_lie = lie;
    }

    /// Flips one bit of a file, counted from its start and around its end; says whether there is such a file.
    pub fn flip_bit(&self, path: &str, bit: u64) -> bool {
        let mut state = self.state();
        let Ok(number) = state.number(path) else { return false };
        let bytes = &mut state.file(number).bytes;
        let bits = bytes.len() as u64 * 8;
        if bits > 0 {
            bytes[(bit % bits / 8) as usize] ^= 1 << (bit % 8);
        }
        bits > 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn draw(&mut self, below: u64) -> u64 {
        self.draws += 1;
        rng::below(self.seed, self.draws, below)
    }

    fn is_on(&self) -> io::Result<()> {
        if self.power == Power::Off { Err(no_power()) } else { Ok(()) }
    }

    /// Makes a change, during which the power may go: then it is as likely lost as kept.
    fn change<T>(&mut self, make: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        self.is_on()?;
        if self.read_only {
            return Err(ErrorKind::ReadOnlyFilesystem.into());
        }
        self.changes += 1;
        if let Power::Left(left) = &mut self.power {
            *left -= 1;
            if *left == 0 {
                self.power = Power::Off;
            }
        }
        let made = make(self);
        self.is_on().and(made)
    }

    /// Whether a sync that was asked for does what it should.
    fn syncs(&self) -> io::Result<bool> {
        if self.syncs_fail {
            Err(io::Error::other("the disk does not answer"))
        } else {
            Ok(!self.syncs_lie && self.power != Power::Off)
        }
    }

    fn number(&self, path: &str) -> io::Result<u64> {
        match self.names.get(path) {
            Some(Node::File(number)) => Ok(*number),
            Some(Node::Dir) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn file(&mut self, number: u64) -> &mut File {
        self.files.entry(number).or_default()
    }

    fn used(&self) -> u64 {
        self.files.values().map(|file| file.bytes.len() as u64).sum()
    }

    fn room_for(&self, number: u64, length: usize) -> io::Result<()> {
        let now = self.files.get(&number).map_or(0, |file| file.bytes.len());
        let more = length.saturating_sub(now) as u64;
        match self.capacity {
            Some(capacity) if more > 0 && self.used() + more > capacity => Err(ErrorKind::StorageFull.into()),
            Some(_) | None => Ok(()),
        }
    }

    fn name(&mut self, path: &str, after: Option<Node>) -> io::Result<()> {
        let dir = parent(path);
        if !dir.is_empty() && self.names.get(dir) != Some(&Node::Dir) {
            return Err(ErrorKind::NotFound.into());
        }
        let before = match after {
            Some(node) => self.names.insert(path.to_owned(), node),
            None => self.names.remove(path),
        };
        self.unsynced_names.push(Renaming { path: path.to_owned(), before, after });
        let was_there =
            self.unsynced_names.iter().find(|change| change.path == path).and_then(|first| first.before);
        if was_there.is_none() && after.is_none() {
            // It came and went since the last sync: nobody remembers.
            self.unsynced_names.retain(|change| change.path != path);
        }
        self.forget_nameless(before);
        Ok(())
    }

    /// Gives back the space of a file that has no name any more and cannot get one back by a restart.
    fn forget_nameless(&mut self, node: Option<Node>) {
        let Some(Node::File(number)) = node else { return };
        let named = self.names.values().any(|node| *node == Node::File(number));
        let may_return = self.unsynced_names.iter().any(|change| change.before == Some(Node::File(number)));
        if !named && !may_return {
            self.files.remove(&number);
        }
    }

    fn end_process(&mut self) {
        self.power = Power::On;
        self.era += 1;
        self.locks.clear();
    }

    fn restart(&mut self) {
        self.end_process();
        // Some disks write whole or not at all, some tear.
        let tears = self.draw(4) > 0;
        let mut files = std::mem::take(&mut self.files);
        for file in files.values_mut() {
            file.lose(tears, |below| self.draw(below));
        }
        self.files = files;
        self.lose_names();
        let named: BTreeSet<u64> = self
            .names
            .values()
            .filter_map(|node| if let Node::File(number) = node { Some(*number) } else { None })
            .collect();
        self.files.retain(|number, _| named.contains(number));
    }

    fn lose_names(&mut self) {
        let changes = std::mem::take(&mut self.unsynced_names);
        for change in changes.iter().rev() {
            self.put_name(&change.path, change.before);
        }
        for change in &changes {
            if self.draw(2) == 0 {
                self.put_name(&change.path, change.after);
            }
        }
        let dirs: BTreeSet<String> =
            self.names.iter().filter(|(_, node)| **node == Node::Dir).map(|(path, _)| path.clone()).collect();
        self.names.retain(|path, _| {
            let mut dir = parent(path);
            while dirs.contains(dir) {
                dir = parent(dir);
            }
            dir.is_empty()
        });
    }

    fn put_name(&mut self, path: &str, node: Option<Node>) {
        match node {
            Some(node) => self.names.insert(path.to_owned(), node),
            None => self.names.remove(path),
        };
    }

    fn entry(&self, path: &str, node: Node) -> Entry {
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        match node {
            Node::Dir => Entry { name, is_dir: true, bytes: 0, age: Duration::ZERO },
            Node::File(number) => {
                let file = self.files.get(&number);
                let written = file.map_or(self.now, |file| file.written);
                let bytes = file.map_or(0, |file| file.bytes.len() as u64);
                Entry { name, is_dir: false, bytes, age: self.now.saturating_sub(written) }
            }
        }
    }
}

impl File {
    fn write(&mut self, at: usize, bytes: &[u8]) {
        let length_before = self.bytes.len();
        let old = self.bytes.get(at..length_before.min(at + bytes.len())).unwrap_or_default().to_vec();
        overwrite(&mut self.bytes, at, bytes);
        self.unsynced.push(Change { length_before, old, at, what: What::Write(bytes.to_vec()) });
    }

    fn set_length(&mut self, length: usize) {
        let length_before = self.bytes.len();
        let old = self.bytes.get(length..).unwrap_or_default().to_vec();
        self.bytes.resize(length, 0);
        self.unsynced.push(Change { length_before, old, at: length, what: What::Length(length) });
    }

    /// Goes back to what was synced, and makes any part of the changes since.
    fn lose(&mut self, tears: bool, mut draw: impl FnMut(u64) -> u64) {
        let changes = std::mem::take(&mut self.unsynced);
        for change in changes.iter().rev() {
            self.bytes.resize(change.length_before, 0);
            let end = change.at + change.old.len();
            if let Some(place) = self.bytes.get_mut(change.at..end) {
                place.copy_from_slice(&change.old);
            }
        }
        for change in changes {
            match change.what {
                What::Length(length) if draw(2) == 0 => self.bytes.resize(length, 0),
                What::Write(bytes) if draw(3) > 0 => {
                    for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                        if !tears || draw(3) > 0 {
                            overwrite(&mut self.bytes, change.at + index * SECTOR, sector);
                        }
                    }
                }
                What::Length(_) | What::Write(_) => {}
            }
        }
    }
}

fn overwrite(bytes: &mut Vec<u8>, at: usize, new: &[u8]) {
    if bytes.len() < at + new.len() {
        bytes.resize(at + new.len(), 0);
    }
    bytes[at..at + new.len()].copy_from_slice(new);
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

fn no_power() -> io::Error {
    io::Error::other("the power is off")
}

impl Disk for SimDisk {
    fn place(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("sim:/{path}"))
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let mut state = self.state();
        state.is_on()?;
        let number = state.number(path)?;
        Ok(state.file(number).bytes.clone())
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state();
        state.is_on()?;
        let number = state.number(path)?;
        Ok(Arc::new(SimFile { disk: self.clone(), number, era: state.era }))
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        let number = state.next_file;
        state.next_file += 1;
        state.change(|state| {
            let written = state.now;
            state.files.insert(number, File { written, ..File::default() });
            state.name(path, Some(Node::File(number)))
        })?;
        Ok(Arc::new(SimFile { disk: self.clone(), number, era: state.era }))
    }

    fn entry(&self, path: &str) -> io::Result<Option<Entry>> {
        let state = self.state();
        state.is_on()?;
        Ok(state.names.get(path).map(|node| state.entry(path, *node)))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        let state = self.state();
        state.is_on()?;
        if !dir.is_empty() && state.names.get(dir) != Some(&Node::Dir) {
            return Err(ErrorKind::NotFound.into());
        }
        let start = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        let below = state.names.range(start.clone()..).take_while(|(path, _)| path.starts_with(&start));
        let here = below.filter(|(path, _)| parent(path) == dir);
        Ok(here.map(|(path, node)| state.entry(path, *node)).collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.state().change(|state| {
            let number = state.number(from)?;
            state.name(to, Some(Node::File(number)))?;
            state.name(from, None)
        })
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.state().change(|state| {
            state.number(path)?;
            state.name(path, None)
        })
    }

    fn touch(&self, path: &str) -> io::Result<()> {
        self.state().change(|state| {
            let number = state.number(path)?;
            state.file(number).written = state.now;
            Ok(())
        })
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        let mut state = self.state();
        match state.names.get(path) {
            Some(Node::Dir) => state.is_on(),
            Some(Node::File(_)) => Err(ErrorKind::AlreadyExists.into()),
            None => state.change(|state| state.name(path, Some(Node::Dir))),
        }
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        self.state().change(|state| {
            if state.syncs()? {
                let (synced, unsynced): (Vec<_>, Vec<_>) = std::mem::take(&mut state.unsynced_names)
                    .into_iter()
                    .partition(|change| parent(&change.path) == path);
                state.unsynced_names = unsynced;
                synced.into_iter().for_each(|change| state.forget_nameless(change.before));
            }
            Ok(())
        })
    }

    fn room(&self) -> io::Result<Option<Room>> {
        let state = self.state();
        state.is_on()?;
        let room = |total: u64| Room { free: total.saturating_sub(state.used()), total };
        Ok(state.capacity.map(room))
    }

    fn lock(&self, path: &str) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        let mut state = self.state();
        state.is_on()?;
        if state.read_only {
            return Err(ErrorKind::ReadOnlyFilesystem.into());
        }
        if !state.locks.insert(path.to_owned()) {
            return Ok(None);
        }
        Ok(Some(Box::new(SimLock { disk: self.clone(), path: path.to_owned(), era: state.era })))
    }
}

/// Lets go of a lock when it is dropped, unless a restart did.
struct SimLock {
    disk: SimDisk,
    path: String,
    era: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.era == self.era {
            state.locks.remove(&self.path);
        }
    }
}

/// An open file of a simulated disk.
struct SimFile {
    disk: SimDisk,
    number: u64,
    era: u64,
}

impl SimFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        if state.era == self.era { Ok(state) } else { Err(no_power()) }
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimFile({})", self.number)
    }
}

impl DiskFile for SimFile {
    fn length(&self) -> io::Result<u64> {
        let mut state = self.state()?;
        state.is_on()?;
        Ok(state.file(self.number).bytes.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut state = self.state()?;
        state.is_on()?;
        let start = offset as usize;
        let bytes = &state.file(self.number).bytes;
        buffer.copy_from_slice(bytes.get(start..start + buffer.len()).ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.state()?.change(|state| {
            let at = offset as usize;
            state.room_for(self.number, at + bytes.len())?;
            let now = state.now;
            let file = state.file(self.number);
            file.written = now;
            file.write(at, bytes);
            Ok(())
        })
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.state()?.change(|state| {
            state.room_for(self.number, length as usize)?;
            state.file(self.number).set_length(length as usize);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.state()?.change(|state| {
            if state.syncs()? {
                state.file(self.number).unsynced.clear();
            }
            Ok(())
        })
    }
}
