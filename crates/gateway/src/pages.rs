//! Lists of which nothing on the first page is the caller's.

use std::sync::Arc;

use aiproxy_registry::live::Live;
use aiproxy_routing::objects::Task;
use aiproxy_routing::{Candidate, Plan, Refusal};
use aiproxy_upstream::Source;
use http::{HeaderMap, Method};

use crate::attempts::{self, Answered, Ask};
use crate::objects::{Owners, Settled, next_query};
use crate::phases::{Core, unless_cut};
use crate::record::Record;

/// Pages of a list that are asked for until one holds something of the caller's.
const PAGES: usize = 50;

/// A list of objects, asked for page by page.
pub(crate) struct List<'a> {
    pub(crate) owners: &'a Owners,
    pub(crate) task: &'a Task,
    pub(crate) headers: HeaderMap,
    pub(crate) query: Option<&'a str>,
    pub(crate) key: &'a str,
    pub(crate) epoch: u64,
}

impl List<'_> {
    /// SDKs stop at an empty page: where nothing of a page is the caller's, the next one is asked for
    /// on the caller's behalf, on the channel that gave the first.
    pub(crate) async fn first_page_with_something(
        &self,
        core: &Core,
        record: &mut Record,
        live: &Live,
        mut answered: Answered,
        mut settled: Settled,
    ) -> Result<(Answered, Settled), Refusal> {
        let mut query = self.query.map(str::to_owned);
        for _ in 0..PAGES {
            let Some((name, value)) = settled.more.take() else { break };
            let anthropic = self.headers.contains_key("anthropic-version");
            let next = next_query(query.as_deref(), (name, &value), anthropic);
            let candidate = Candidate { channel: Arc::clone(&answered.channel), path: answered.path.clone() };
            let plan = Plan { candidates: [candidate].into_iter().collect(), named: true };
            let ask = Ask {
                method: Method::GET,
                headers: self.headers.clone(),
                query: Some(&next),
                key: self.key,
                readable: true,
                source: Source::empty(),
                creates: false,
                epoch: self.epoch,
            };
            answered = unless_cut(live, attempts::open(core, record, live, plan, ask)).await??;
            let page =
                self.owners.settle(self.task, &answered.channel, &mut answered.head, &mut answered.body);
            settled = unless_cut(live, page).await??;
            query = Some(next);
        }
        Ok((answered, settled))
    }
}
