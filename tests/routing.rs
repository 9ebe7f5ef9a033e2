//! Who may call, and which channel serves the request.

mod access;
mod channels;
mod limits;
mod paths;
