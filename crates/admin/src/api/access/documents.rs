//! The routes of what is administered: users, groups, keys, channels and what they do at the moment.

use super::{Access, Area, Route, reads, row, writes};

pub(super) const ROUTES: &[Route] = &[];
