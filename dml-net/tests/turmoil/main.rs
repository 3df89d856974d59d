//! Db nodes and workers as they are, HTTP and files included, on a network and disks that fail by a seed: machines lose
//! power and forget what was not synced, the network splits, loses and delays.
//!
//! Time is simulated, but threads that may block take real time, so a seed repeats the faults and not every message. The
//! tests therefore wait for conditions and never count.

mod addresses;
mod hosts;
mod loss;
mod net;
mod partition;
mod power;
mod training;
mod writes;
