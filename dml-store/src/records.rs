//! Records and settings: durable by the log ([`crate::log`]), kept in the table ([`crate::table`]).
//!
//! Writers that wait for each other share a frame of the log: whoever gets the pen writes for all who queue (group
//! commit), so that the price of a sync is split among them. When a half of the log is full, what it holds goes into the
//! table in the background, each key once, while the other half is written.

use std::{
    mem::take,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use dml_core::Digest;

use crate::{
    Batch, Disk, StoreError,
    error::Health,
    log::Log,
    table::{Changes, Key, Table},
};

pub(crate) struct Records {
    table: Arc<Table>,
    recent: Arc<Mutex<Recent>>,
    queue: Mutex<Queue>,
    /// Told when a writer has put the pen down.
    written: Condvar,
    /// Held by who has the pen.
    pen: Mutex<Pen>,
}

/// What is in the log and not in the table.
#[derive(Default)]
struct Recent {
    /// What is going into the table, and the epoch that it awaits then.
    settling: Option<(Arc<Changes>, u64)>,
    /// What came after.
    pending: Changes,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Arc<Waiting>>,
    /// Whether somebody has the pen.
    writing: bool,
}

/// A change that is waiting for the pen, and what became of it.
struct Waiting {
    changes: Mutex<Changes>,
    outcome: Mutex<Option<Result<(), StoreError>>>,
}

struct Pen {
    log: Log,
    /// Brings the other half into the table.
    settler: Option<JoinHandle<()>>,
}

impl Records {
    pub(crate) fn open(disk: Arc<dyn Disk>, health: Arc<Health>) -> Result<Self, StoreError> {
        let table = Table::open(disk.clone(), health.clone())?;
        let log = match table.epoch()? {
            None => {
                let log = Log::create(disk, health, 0)?;
                table.write(&Changes::new(), log.epoch())?;
                log
            }
            Some(epoch) => {
                let (mut log, found) = Log::open(disk, health, epoch)?;
                if !found.is_empty() {
                    log.turn();
                    table.write(&found.into_iter().flatten().collect(), log.epoch())?;
                }
                log
            }
        };
        Ok(Self {
            table: Arc::new(table),
            recent: Arc::default(),
            queue: Mutex::default(),
            written: Condvar::new(),
            pen: Mutex::new(Pen { log, settler: None }),
        })
    }

    pub(crate) fn all(&self) -> Result<Vec<(Digest, Vec<u8>)>, StoreError> {
        let recent = lock(&self.recent);
        let mut all: Changes =
            self.table.all()?.into_iter().map(|(id, value)| (Key::Record(id), Some(value))).collect();
        let settling = recent.settling.iter().flat_map(|(changes, _)| changes.iter());
        all.extend(settling.chain(&recent.pending).map(|(key, value)| (key.clone(), value.clone())));
        let record = |(key, value)| if let Key::Record(id) = key { Some((id, value?)) } else { None };
        Ok(all.into_iter().filter_map(record).collect())
    }

    pub(crate) fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let (recent, key) = (lock(&self.recent), Key::Setting(name.into()));
        let settling = || recent.settling.as_ref().and_then(|(changes, _)| changes.get(&key));
        match recent.pending.get(&key).or_else(settling) {
            Some(value) => Ok(value.clone()),
            None => self.table.setting(name),
        }
    }

    pub(crate) fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        self.write(batch.iter().map(|(id, value)| (Key::Record(*id), value.clone())).collect())
    }

    pub(crate) fn set_setting(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        self.write([(Key::Setting(name.into()), Some(value.to_vec()))].into())
    }

    /// Queues until another has written the changes, or the pen is free to write them with all that queue by then.
    fn write(&self, changes: Changes) -> Result<(), StoreError> {
        let mine = Arc::new(Waiting { changes: Mutex::new(changes), outcome: Mutex::new(None) });
        let mut queue = lock(&self.queue);
        queue.waiting.push(mine.clone());
        while queue.writing {
            queue = self.written.wait(queue).unwrap_or_else(PoisonError::into_inner);
            if let Some(outcome) = lock(&mine.outcome).take() {
                return outcome;
            }
        }
        queue.writing = true;
        let group = take(&mut queue.waiting);
        drop(queue);
        let changes = group.iter().flat_map(|waiting| take(&mut *lock(&waiting.changes))).collect();
        let outcome = self.append(changes);
        for waiting in &group {
            *lock(&waiting.outcome) = Some(outcome.clone());
        }
        lock(&self.queue).writing = false;
        self.written.notify_all();
        outcome
    }

    fn append(&self, changes: Changes) -> Result<(), StoreError> {
        let mut pen = lock(&self.pen);
        let Some(frame) = pen.log.frame(&changes) else {
            return self.write_through(&mut pen, changes);
        };
        if !pen.log.has_room(&frame) {
            self.settle(&mut pen)?;
        }
        pen.log.append(frame)?;
        lock(&self.recent).pending.extend(changes);
        Ok(())
    }

    /// What is too large for the log goes into the table at once, with all that came before it.
    fn write_through(&self, pen: &mut Pen, changes: Changes) -> Result<(), StoreError> {
        self.finish(pen)?;
        let mut all = lock(&self.recent).pending.clone();
        all.extend(changes);
        self.table.write(&all, pen.log.epoch() + 1)?;
        pen.log.turn();
        lock(&self.recent).pending.clear();
        Ok(())
    }

    /// Goes over to the other half of the log; what this one holds goes into the table meanwhile.
    fn settle(&self, pen: &mut Pen) -> Result<(), StoreError> {
        self.finish(pen)?;
        pen.log.turn();
        let mut recent = lock(&self.recent);
        let changes = Arc::new(take(&mut recent.pending));
        recent.settling = Some((changes.clone(), pen.log.epoch()));
        let (table, recent, epoch) = (self.table.clone(), self.recent.clone(), pen.log.epoch());
        pen.settler = Some(thread::spawn(move || {
            // A failure is met again by who needs the half.
            if table.write(&changes, epoch).is_ok() {
                lock(&recent).settling = None;
            }
        }));
        Ok(())
    }

    /// Sees to it that the other half of the log is free.
    fn finish(&self, pen: &mut Pen) -> Result<(), StoreError> {
        if let Some(settler) = pen.settler.take() {
            settler.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        let left = lock(&self.recent).settling.clone();
        if let Some((changes, epoch)) = left {
            self.table.write(&changes, epoch)?;
            lock(&self.recent).settling = None;
        }
        Ok(())
    }
}

impl Drop for Records {
    /// Whoever opens the directory next finds nobody at work in it.
    fn drop(&mut self) {
        if let Some(settler) = lock(&self.pen).settler.take() {
            // It says itself why it fails, when it is tried again.
            let _ = settler.join();
        }
    }
}

/// Every mutex here guards a value that is whole at any moment, also when its holder panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
