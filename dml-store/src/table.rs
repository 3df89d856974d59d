//! The table of records and settings: one redb file, written in large steps by [`crate::records`].
//!
//! A value is kept behind eight bytes of its digest, since redb checks its pages only when it is asked to, and a record
//! that rots must not merge into the cluster.
//!
//! Records are kept in the order in which they came, under numbers, so that many new ones fill few pages: their ids are
//! digests, under which each would have a page to itself to change. Nobody looks for a single record here; which number an
//! id has is known in memory.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, ErrorKind},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use dml_core::{Digest, id::Digester};
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, WriteTransaction,
};
use serde::{Deserialize, Serialize};

use crate::{Disk, DiskFile, StoreError, error::Health};

const FILE: &str = "records.redb";
/// The file until it is complete, so that a crash while it is made leaves nothing that looks like it.
const NEW_FILE: &str = "records.redb.new";
const CACHE_BYTES: usize = 16 << 20;
/// Id and sealed value, by number.
const RECORDS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("records by number");
/// As they were kept up to format 2.
const RECORDS_BY_ID: TableDefinition<'static, &[u8; 32], &[u8]> = TableDefinition::new("records");
const SETTINGS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("settings");
/// The epoch of the log whose changes are not in the table yet.
const LOG: TableDefinition<'static, (), u64> = TableDefinition::new("log");
pub(crate) const MEND: &str =
    "move the data directory away and start again: the cluster brings back what it held";

/// What a value is kept under.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Key {
    Record(Digest),
    Setting(String),
}

/// New values by key, and none where one is to go.
pub(crate) type Changes = BTreeMap<Key, Option<Vec<u8>>>;

pub(crate) struct Table {
    disk: Arc<dyn Disk>,
    health: Arc<Health>,
    /// Closed (`None`) by a failed read or write, and opened again for the next one.
    database: RwLock<Option<Database>>,
    /// None until the table was read, and after a failure, which leaves open what was written.
    numbers: Mutex<Option<Numbers>>,
}

/// Under which numbers records are kept.
#[derive(Default)]
struct Numbers {
    of: HashMap<Digest, u64>,
    next: u64,
}

impl Numbers {
    fn insert(&mut self, id: Digest, number: u64) {
        self.of.insert(id, number);
        self.next = self.next.max(number + 1);
    }
}

impl Table {
    pub(crate) fn open(disk: Arc<dyn Disk>, health: Arc<Health>) -> Result<Self, StoreError> {
        let table = Self { disk, health, database: RwLock::new(None), numbers: Mutex::new(None) };
        if table.disk.entry(FILE).map_err(|error| table.io(error))?.is_none() {
            table.create()?;
        }
        table.reopen()?;
        table.with(take_over)?;
        Ok(table)
    }

    fn create(&self) -> Result<(), StoreError> {
        let file = self.disk.create(NEW_FILE).map_err(|error| self.io(error))?;
        self.guarded(|| {
            self.load(file).and_then(|new| transact(&new, &Changes::new(), None, &Numbers::default()))
        })?;
        self.disk.rename(NEW_FILE, FILE).map_err(|error| self.io(error))?;
        self.health.synced(|| self.disk.place(""), self.disk.sync_dir(""))
    }

    pub(crate) fn all(&self) -> Result<Vec<(Digest, Vec<u8>)>, StoreError> {
        let mut numbers = self.numbers();
        let (rows, found) = self.read(<[u8]>::to_vec)?;
        *numbers = Some(found);
        rows.into_iter().map(|(id, sealed)| Ok((id, self.unseal(id.as_bytes(), &sealed)?))).collect()
    }

    /// All records, and what is made of what they are kept as.
    fn read<T>(&self, of: impl Fn(&[u8]) -> T) -> Result<(Vec<(Digest, T)>, Numbers), StoreError> {
        self.with(|database| {
            let table = database.begin_read()?.open_table(RECORDS)?;
            let (mut rows, mut numbers) = (Vec::new(), Numbers::default());
            for row in table.iter()? {
                let (number, value) = row?;
                let (id, sealed) = value.value().split_first_chunk().ok_or_else(cut)?;
                let id = Digest::from_bytes(*id);
                numbers.insert(id, number.value());
                rows.push((id, of(sealed)));
            }
            Ok((rows, numbers))
        })
    }

    fn numbers(&self) -> MutexGuard<'_, Option<Numbers>> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.with(|database| {
            let table = database.begin_read()?.open_table(SETTINGS)?;
            Ok(table.get(name)?.map(|value| value.value().to_vec()))
        })?
        .map(|sealed| self.unseal(name.as_bytes(), &sealed))
        .transpose()
    }

    /// The epoch of the log that the table awaits: see [`crate::log`]. None if there has been no log yet.
    pub(crate) fn epoch(&self) -> Result<Option<u64>, StoreError> {
        self.with(|database| {
            let transaction = database.begin_read()?;
            match transaction.open_table(LOG) {
                Ok(table) => Ok(table.get(())?.map(|epoch| epoch.value())),
                Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
    }

    /// Makes changes durable in one step, and with them what they await next.
    pub(crate) fn write(&self, changes: &Changes, epoch: u64) -> Result<(), StoreError> {
        let mut numbers = self.numbers();
        let mut known = match numbers.take() {
            Some(known) => known,
            None => self.read(|_| ())?.1,
        };
        let news = self.with(|database| transact(database, changes, Some(epoch), &known))?;
        for (id, number) in news {
            match number {
                Some(number) => known.insert(id, number),
                None => drop(known.of.remove(&id)),
            }
        }
        *numbers = Some(known);
        Ok(())
    }

    /// Does something with the open database. redb refuses everything after its first failed read or write, so then
    /// the database is closed, and whoever comes next opens it again: a full disk needs no restart.
    fn with<T>(&self, act: impl Fn(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let mut retries = 3;
        loop {
            self.health.check()?;
            let open = self.database.read().unwrap_or_else(PoisonError::into_inner);
            let Some(database) = &*open else {
                drop(open);
                self.reopen()?;
                continue;
            };
            let error = match caught(|| act(database)) {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            drop(open);
            let others_failure = matches!(error, redb::Error::PreviousIo);
            if others_failure || matches!(error, redb::Error::Io(_)) {
                *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
            }
            if !others_failure || retries == 0 {
                return Err(self.explain(error));
            }
            retries -= 1;
        }
    }

    /// Opens the database if it is closed, when all who used the former one are done with it.
    fn reopen(&self) -> Result<(), StoreError> {
        let mut open = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if open.is_some() {
            return Ok(());
        }
        let file = self.disk.open(FILE).map_err(|error| self.io(error))?;
        if file.length().map_err(|error| self.io(error))? == 0 {
            // redb would take it for a new database.
            return Err(self.corrupt("it is empty".into()));
        }
        *open = Some(self.guarded(|| self.load(file))?);
        Ok(())
    }

    fn load(&self, file: Arc<dyn DiskFile>) -> Result<Database, redb::Error> {
        let backend = Backend { file, place: self.disk.place(FILE), health: self.health.clone() };
        Ok(Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend)?)
    }

    fn guarded<T>(&self, act: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, StoreError> {
        caught(act).map_err(|error| self.explain(error))
    }

    fn explain(&self, error: redb::Error) -> StoreError {
        if let Err(fatal) = self.health.check() {
            return fatal;
        }
        let cut =
            |error: &io::Error| matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof);
        if let redb::Error::Corrupted(what) = error {
            self.corrupt(what)
        } else if let redb::Error::Io(error) = error {
            if cut(&error) { self.corrupt(error.to_string()) } else { self.io(error) }
        } else {
            self.io(io::Error::other(error))
        }
    }

    fn io(&self, error: io::Error) -> StoreError {
        StoreError::io(self.disk.place(FILE), error)
    }

    fn corrupt(&self, what: String) -> StoreError {
        StoreError::Corrupt { path: self.disk.place(FILE), what, mend: MEND }
    }

    fn unseal(&self, key: &[u8], sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        match sealed.split_first_chunk() {
            Some((found, value)) if *found == seal(key, value) => Ok(value.to_vec()),
            Some(_) | None => Err(self.corrupt("a record is not what was written".into())),
        }
    }
}

/// Makes changes durable. Gives the numbers of records that are new, and the ids of those that are gone.
fn transact(
    database: &Database,
    changes: &Changes,
    epoch: Option<u64>,
    numbers: &Numbers,
) -> Result<Vec<(Digest, Option<u64>)>, redb::Error> {
    let (mut news, mut next) = (Vec::new(), numbers.next);
    let transaction = begin(database)?;
    {
        let mut records = transaction.open_table(RECORDS)?;
        let mut settings = transaction.open_table(SETTINGS)?;
        for (key, value) in changes {
            match (key, value) {
                (Key::Record(id), Some(value)) => {
                    let number = numbers.of.get(id).copied().unwrap_or_else(|| {
                        news.push((*id, Some(next)));
                        next += 1;
                        next - 1
                    });
                    let (id, value) = (id.as_bytes().as_slice(), value.as_slice());
                    records.insert(number, [id, &seal(id, value), value].concat().as_slice())?;
                }
                (Key::Record(id), None) => {
                    if let Some(number) = numbers.of.get(id) {
                        records.remove(number)?;
                        news.push((*id, None));
                    }
                }
                (Key::Setting(name), Some(value)) => {
                    let sealed = [seal(name.as_bytes(), value).as_slice(), value].concat();
                    settings.insert(name.as_str(), sealed.as_slice())?;
                }
                (Key::Setting(name), None) => {
                    settings.remove(name.as_str())?;
                }
            }
        }
        if let Some(epoch) = epoch {
            transaction.open_table(LOG)?.insert((), epoch)?;
        }
    }
    transaction.commit()?;
    Ok(news)
}

/// Gives numbers to the records of a table of an earlier format.
fn take_over(database: &Database) -> Result<(), redb::Error> {
    match database.begin_read()?.open_table(RECORDS_BY_ID) {
        Ok(_) => {}
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    let transaction = begin(database)?;
    {
        let before = transaction.open_table(RECORDS_BY_ID)?;
        let mut records = transaction.open_table(RECORDS)?;
        for (number, row) in (0..).zip(before.iter()?) {
            let (id, sealed) = row?;
            records.insert(number, [id.value().as_slice(), sealed.value()].concat().as_slice())?;
        }
    }
    transaction.delete_table(RECORDS_BY_ID)?;
    Ok(transaction.commit()?)
}

fn begin(database: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut transaction = database.begin_write()?;
    // The file is opened in a millisecond after a crash, whatever its size, for a little more work in each commit.
    transaction.set_quick_repair(true);
    transaction.set_durability(Durability::Immediate)?;
    Ok(transaction)
}

fn cut() -> redb::Error {
    redb::Error::Corrupted("a record is shorter than its id".into())
}

/// Eight bytes that tell whether a value is the one written under this key.
fn seal(key: &[u8], value: &[u8]) -> [u8; 8] {
    let mut digester = Digester::default();
    digester.update(key);
    digester.update(value);
    digester.finish().seed().to_le_bytes()
}

/// Some damage makes redb panic rather than answer: that is a damaged file, not a fault of the caller.
fn caught<T>(act: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    catch_unwind(AssertUnwindSafe(act))
        .unwrap_or_else(|_| Err(redb::Error::Corrupted("its pages contradict each other".into())))
}

/// What redb reads and writes: a file of ours, whose failed syncs are remembered.
#[derive(Debug)]
struct Backend {
    file: Arc<dyn DiskFile>,
    place: PathBuf,
    health: Arc<Health>,
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_length(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.health.synced(|| self.place.clone(), self.file.sync()).map_err(io::Error::other)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, data)
    }
}
