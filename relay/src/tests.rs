//! Calls over an emulated network with a clock of its own: nothing here sleeps.

mod calls;
mod channels;
mod descriptions;
mod network;
mod world;
