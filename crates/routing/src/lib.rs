//! Who is calling, what may they do, and which channels serve it.
//!
//! Owns: finding the Proxy-Key in a request, authentication, admission, reading the model, and
//! the plan of channels. Pure: arguments in, decisions out.
//! Never does: I/O, clocks (`now` is an argument; only turns between equal channels are drawn), changing a request (that is `upstream`).
//!
//! - [`identify`]: the Proxy-Key in whatever place the caller put it
//! - [`client_ip`]: the caller's address behind trusted proxies
//! - [`target`]: the request target taken apart
//! - [`admit`]: authentication and permission
//! - [`model`]: the model named in a JSON or multipart body, found while bytes pass
//! - [`objects`]: whose object a request speaks of, and where it lives
//! - [`plan`]: channels to try, in order
//! - [`refusal`]: a cause and what to say about it

pub mod admit;
pub mod client_ip;
pub mod identify;
pub mod model;
pub mod objects;
pub mod plan;
pub mod refusal;
pub mod target;

pub use plan::{Candidate, Plan};
pub use refusal::Refusal;
pub use target::Target;
