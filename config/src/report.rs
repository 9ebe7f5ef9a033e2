//! Collects problems while a configuration is read, and turns them into what people see.

use std::collections::HashSet;

use aiproxy_core::EntityKind;

use crate::complaint::Complaint;
use crate::entity::{self, Fault};
use crate::excerpt::Excerpt;
use crate::mask::Masker;
use crate::problem::{Problem, Severity};
use crate::source::{Lines, Source};
use crate::tree::{Span, Trail};

/// Most problems that are kept; more than that nobody reads.
const MOST: usize = 200;

struct Found {
    severity: Severity,
    trail: Trail,
    span: Span,
    complaint: Complaint,
}

/// The problems found so far.
#[derive(Default)]
pub(crate) struct Report {
    found: Vec<Found>,
    more: usize,
    errors: usize,
}

impl Report {
    pub(crate) fn error(&mut self, trail: &Trail, span: Span, complaint: Complaint) {
        self.errors += 1;
        self.add(Severity::Error, trail, span, complaint);
    }

    pub(crate) fn warning(&mut self, trail: &Trail, span: Span, complaint: Complaint) {
        self.add(Severity::Warning, trail, span, complaint);
    }

    fn add(&mut self, severity: Severity, trail: &Trail, span: Span, complaint: Complaint) {
        // Warnings never crowd errors out.
        let most = if severity == Severity::Warning { MOST / 2 } else { MOST };
        if self.found.len() < most {
            self.found.push(Found { severity, trail: trail.clone(), span, complaint });
        } else {
            self.more += 1;
        }
    }

    /// Whether further problems are only counted.
    pub(crate) fn is_full(&self) -> bool {
        self.found.len() >= MOST
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// The errors by the documents that they are about, masked.
    pub(crate) fn faults(self, masker: &Masker<'_>) -> Vec<Fault> {
        let errors = self.found.into_iter().filter(|found| found.severity == Severity::Error);
        let faults = errors.map(|Found { trail, complaint, .. }| {
            let (section, id, path) = trail.within();
            let kind = EntityKind::ALL.into_iter().find(|kind| entity::section(*kind) == section);
            Fault {
                kind: kind.unwrap_or(EntityKind::User),
                id,
                path: masker.message(&path.to_string()),
                message: masker.message(&complaint.message),
                suggestion: complaint.suggestion.map(|text| masker.message(&text)),
            }
        });
        faults.collect()
    }

    /// The problems in the order of the file, masked and with the lines they are about; and how
    /// many more there were.
    pub(crate) fn finish(
        mut self,
        source: &Source,
        lines: &Lines<'_>,
        masker: &Masker<'_>,
    ) -> (Vec<Problem>, usize) {
        self.found.sort_by_key(|found| found.span.start);
        let mut seen = HashSet::new();
        let problems = self
            .found
            .into_iter()
            // What is written once and used by alias is one problem.
            .filter(|found| {
                seen.insert((found.span.start.line, found.span.start.column, found.complaint.message.clone()))
            })
            .map(|Found { severity, trail, span, complaint }| {
                let line = span.start.line;
                let from = span.start.column - 1;
                let until = if span.end.line == line { span.end.column - 1 } else { from + 1 };
                Problem {
                    severity,
                    file: source.name.clone(),
                    path: masker.message(&trail.to_string()),
                    line,
                    column: span.start.column,
                    message: masker.message(&complaint.message),
                    suggestion: complaint.suggestion.map(|text| masker.message(&text)),
                    excerpt: Some(Excerpt::new(lines.get(line), &masker.line(line), from..until)),
                }
            })
            .collect();
        (problems, self.more)
    }
}
