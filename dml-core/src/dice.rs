//! Random numbers, one after the other, all from one seed: the same seed and the same throws make the same choices.

use alloc::vec::Vec;
use core::time::Duration;

use crate::rng;

/// A source of random numbers.
#[derive(Debug, Clone)]
pub(crate) struct Dice {
    seed: u64,
    thrown: u64,
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, thrown: 0 }
    }

    /// Any number.
    pub(crate) fn number(&mut self) -> u64 {
        self.thrown += 1;
        rng::draw(self.seed, self.thrown)
    }

    /// A number in 0..n; 0 when n is 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.thrown += 1;
        rng::below(self.seed, self.thrown, n as u64) as usize
    }

    /// True once in `n` times; never when `n` is 0.
    pub(crate) fn once_in(&mut self, n: u32) -> bool {
        n > 0 && self.below(n as usize) == 0
    }

    /// A time between two numbers of milliseconds.
    pub(crate) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(from * 1000 + self.below(((to - from) * 1000) as usize) as u64)
    }

    /// One of these.
    pub(crate) fn pick<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        if all.is_empty() { None } else { Some(all[self.below(all.len())]) }
    }

    /// Keeps `n` of the things, any of them.
    pub(crate) fn keep<T>(&mut self, n: usize, things: &mut Vec<T>) {
        while things.len() > n {
            let one = self.below(things.len());
            things.swap_remove(one);
        }
    }
}
