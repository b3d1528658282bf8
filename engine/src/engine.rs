//! Does to the lines of one exposition all that is done to a line: selects them, adds labels to
//! them and takes labels and timestamps off, in one pass.
//!
//! Knows the rules of `kmproxy/exposition/selector.py` and `sample_editor.py`. Must not know Python.

use crate::grammar::{self, Pair, Sample, Span};
use crate::memory::{Added, Edit, Labels, Outcome, Seen, Series, Texts, Verdicts, same};

/// Bytes of the longest name of a namespace whose labels are remembered.
const MAX_NAMESPACE: usize = 63;

/// Bytes of the longest name of a pod whose labels are remembered.
const MAX_POD: usize = 253;

/// How many pairs of one sample may repeat labels that are overwritten, so that a line grows by a
/// bounded number of bytes.
const MAX_REPEATS: usize = 8;

const SUFFIXES: [&[u8]; 8] =
    [b"_total", b"_bucket", b"_count", b"_sum", b"_created", b"_info", b"_gcount", b"_gsum"];

/// Answers the questions of an engine. Names are unescaped, but for those of namespaces that need a
/// verdict.
pub trait Host {
    /// An error, which ends the block.
    type Error;
    /// Appends the labels of a namespace to a text.
    fn labels(&mut self, namespace: &[u8], rendered: &mut Vec<u8>) -> Result<(), Self::Error>;
    /// Appends the labels of a pod to a text. Returns whether its samples pass.
    fn pod(
        &mut self,
        namespace: &[u8],
        pod: &[u8],
        rendered: &mut Vec<u8>,
    ) -> Result<bool, Self::Error>;
    /// Whether a metric is selected.
    fn metric(&mut self, name: &[u8], family: &[u8]) -> Result<bool, Self::Error>;
    /// Whether a namespace is selected.
    fn namespace(&mut self, namespace: &[u8]) -> Result<bool, Self::Error>;
    /// The verdict about a tenant's namespace.
    fn verdict(&mut self, namespace: &[u8]) -> Result<Verdict, Self::Error> {
        Ok(if self.namespace(namespace)? { Verdict::Passes } else { Verdict::Unwanted })
    }
    /// The error of a sample that repeats labels that are overwritten too often: its metric, and
    /// the label at which it does.
    fn repeated(&mut self, metric: &[u8], label: &[u8]) -> Self::Error;
    /// Takes room for new series. Returns how many more there is room for.
    fn room(&mut self, series: u64) -> Result<u64, Self::Error>;
}

/// A verdict about a namespace of a tenant's sample. The strictest one of several holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The tenant sees it, and wants it.
    Passes,
    /// The tenant sees it, and does not want it.
    Unwanted,
    /// The tenant does not see it.
    Hidden,
    /// It must be decided first, and the lines read again.
    Undecided,
}

/// What is done to the lines.
#[derive(Debug, Default)]
pub struct Rules {
    /// The labels that name a namespace.
    pub naming: Vec<Vec<u8>>,
    /// The prefixes of their labels, if each of them names one. Else the first that is not empty
    /// does.
    pub prefixes: Vec<Vec<u8>>,
    /// Whether the labels of pods are added.
    pub pods: bool,
    /// Whether a label to be added replaces one that a sample bears.
    pub overwrite: bool,
    /// Whether metrics are selected.
    pub metrics: bool,
    /// Whether namespaces are selected.
    pub namespaces: bool,
    /// The labels that are taken off.
    pub drop: Vec<Vec<u8>>,
    /// Whether timestamps are taken off.
    pub strip: bool,
    /// Whether only the lines of a tenant pass: samples of namespaces that it sees, metadata and
    /// blank lines. Nothing else is done to them.
    pub tenant: bool,
}

impl Rules {
    fn each(&self) -> bool {
        !self.prefixes.is_empty()
    }

    fn drops(&self, name: &[u8]) -> bool {
        self.drop.iter().any(|each| same(each, name))
    }

    fn bits(&self) -> u64 {
        let pod = self.pods.then_some(&b"pod"[..]);
        let names = self.naming.iter().chain(&self.drop).map(Vec::as_slice).chain(pod);
        names.fold(0, |bits, name| bits | 1 << grammar::bit(name))
    }
}

/// The counts of a block.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Samples that were understood and not left out.
    pub samples: u64,
    /// Samples that got a label or a new value.
    pub enriched: u64,
    /// Lines that were not understood.
    pub unparsed: u64,
    /// Labels to be added that a sample bore.
    pub conflicts: u64,
    /// Samples left out because of their pod.
    pub unknown_pods: u64,
    /// Samples left out because of their metric.
    pub metric: u64,
    /// Samples left out because of their namespace.
    pub namespace: u64,
    /// Samples left out because they equal others without the labels that are taken off.
    pub merged: u64,
    /// New series for which no room was taken yet.
    pub series: u64,
    /// Samples left out because the tenant does not see them.
    pub hidden: u64,
    /// Samples left out because their namespace is not decided.
    pub undecided: u64,
}

/// The engine of one exposition.
#[derive(Debug, Default)]
pub struct Engine {
    /// The output of the last blocks.
    pub output: Vec<u8>,
    /// The lines of the last blocks that were taken for no samples, but may look like some.
    pub odd: Vec<u8>,
    /// The counts of the last blocks.
    pub counts: Counts,
    /// The family of the last HELP, TYPE or UNIT line, unescaped.
    pub family: Vec<u8>,
    /// The series of the exposition.
    pub series: Series,
    rules: Rules,
    bits: u64, // of the names that count
    room: u64, // for new series in this block
    sample: Sample,
    spans: Vec<(u32, u32, bool)>, // of the pairs, and whether they are taken off
    places: Vec<Option<usize>>,   // of the namespace labels, among the pairs
    pod: Option<usize>,           // the place of the pod
    dropped: Vec<usize>,          // the places of the labels that are taken off
    named: Vec<(usize, usize)>,   // the places that name a namespace, with the label's number
    found: Vec<(usize, usize)>,   // the places at which labels are added, with their number
    edits: Vec<Edit>,
    text: Vec<u8>,
    texts: Texts,
    labels: Labels,
    metrics: Verdicts<bool>,
    namespaces: Verdicts<bool>,
    unnamed: Option<bool>, // the verdict about samples without a namespace
    tenant: Verdicts<Verdict>,
    undecided: Verdicts<()>, // in these blocks
    last: (Vec<u8>, bool),   // the last metric as it is spelled, in this family, and its verdict
    key: Vec<u8>,
    rendered: Vec<u8>,
}

impl Engine {
    /// An engine for an exposition that begins.
    pub fn new(rules: Rules) -> Engine {
        let kinds = rules.naming.len() + 1; // the last one is that of pods
        let mut prefixes = rules.prefixes.clone();
        prefixes.resize(kinds, Vec::new());
        Engine {
            bits: rules.bits(),
            places: vec![None; rules.naming.len()],
            labels: Labels::new(prefixes),
            rules,
            ..Engine::default()
        }
    }

    /// Reads blocks of whole lines, each with its newline. There is room for some new series.
    ///
    /// After an error, `output` and `counts` mean nothing, but for the new series; the same lines can
    /// be read again if `set_family` is called before.
    pub fn read<H: Host>(
        &mut self,
        blocks: &[&[u8]],
        room: u64,
        host: &mut H,
    ) -> Result<(), H::Error> {
        self.output.clear();
        self.odd.clear();
        self.counts = Counts::default();
        self.undecided.clear();
        self.room = room;
        blocks.iter().try_for_each(|block| self.block(block, host))
    }

    /// Gives back the memory that an unusual block has let grow. The output is not needed any more.
    pub fn shrink(&mut self) {
        shrink(&mut self.output, BLOCK);
        shrink(&mut self.odd, BLOCK);
        shrink(&mut self.sample.pairs, LINE);
        shrink(&mut self.spans, LINE);
        shrink(&mut self.dropped, LINE);
        shrink(&mut self.edits, LINE);
        shrink(&mut self.text, LINE);
        shrink(&mut self.key, LINE);
        shrink(&mut self.rendered, LINE);
        shrink(&mut self.last.0, LINE);
    }

    fn block<H: Host>(&mut self, block: &[u8], host: &mut H) -> Result<(), H::Error> {
        let mut copied = 0;
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', block) {
            let line = &block[start..end];
            self.edits.clear();
            let passes = if self.sample.read(line, |rest| self.texts.find(rest)) {
                self.sample(line, host)?
            } else {
                self.other(line, host)?
            };
            if !passes {
                self.output.extend_from_slice(&block[copied..start]);
                copied = end + 1;
            } else if !self.edits.is_empty() {
                for edit in &self.edits {
                    self.output.extend_from_slice(&block[copied..start + edit.start]);
                    self.output.extend_from_slice(&self.text[edit.text.0..edit.text.1]);
                    copied = start + edit.end;
                }
            }
            start = end + 1;
        }
        self.output.extend_from_slice(&block[copied..]);
        Ok(())
    }

    /// Sets the family of the lines that follow.
    pub fn set_family(&mut self, family: &[u8]) {
        if self.family != family {
            self.family = family.to_vec();
            self.last.0.clear();
        }
    }

    /// Reads a line that is no sample. Returns whether it passes.
    fn other<H: Host>(&mut self, line: &[u8], host: &mut H) -> Result<bool, H::Error> {
        if !grammar::is_silent(line) {
            self.counts.unparsed += 1;
            if grammar::may_be_sample(line) {
                self.odd.extend_from_slice(line);
                self.odd.push(b'\n');
            }
            return Ok(!self.rules.tenant);
        } else if self.rules.tenant {
            let blank = line.iter().all(|byte| matches!(byte, b' ' | b'\t'));
            return Ok(blank || line == b"# EOF" || grammar::family(line).is_some());
        } else if self.rules.metrics
            && let Some((name, escaped)) = grammar::family(line)
        {
            let family = plain(name.of(line), escaped);
            self.set_family(&family);
            return self.wants_metric(&family, host);
        }
        Ok(true)
    }

    /// Edits a sample. Returns whether it passes.
    fn sample<H: Host>(&mut self, line: &[u8], host: &mut H) -> Result<bool, H::Error> {
        if self.rules.metrics && !self.wants_sample(line, host)? {
            self.counts.metric += 1;
            return Ok(false);
        }
        self.text.clear();
        let start = self.sample.braces.start as usize;
        if !self.sample.known {
            return if self.rules.tenant {
                self.tenant_sample(line, host)
            } else {
                self.new_sample(line, host)
            };
        }
        let outcome = self.texts.outcome().0;
        if !self.rules.drop.is_empty()
            && self.is_merged(line, outcome.kept, outcome.dropped, host)?
        {
            return Ok(false);
        }
        self.counts.samples += 1;
        self.counts.enriched += u64::from(outcome.enriched);
        self.counts.conflicts += outcome.conflicts;
        let (_, edits, new) = self.texts.outcome();
        self.text.extend_from_slice(new);
        let moved = |e: &Edit| Edit { start: start + e.start, end: start + e.end, ..*e };
        self.edits.extend(edits.iter().map(moved));
        self.cut_stamp();
        Ok(true)
    }

    /// Edits a sample whose pairs were read. Returns whether it passes.
    fn new_sample<H: Host>(&mut self, line: &[u8], host: &mut H) -> Result<bool, H::Error> {
        self.named.clear();
        self.dropped.clear();
        self.pod = None;
        let mut pods = 0;
        if self.sample.bits & self.bits != 0 {
            match self.find(line) {
                Some(found) => pods = found,
                None => {
                    self.counts.unparsed += 1;
                    return Ok(true);
                }
            }
        }
        if self.rules.namespaces && !self.wants_namespaces(line, host)? {
            self.counts.namespace += 1;
            return Ok(false);
        }
        let mut digests = ([1; 2], [1; 2]);
        if !self.rules.drop.is_empty() {
            digests = self.digests(line);
            if self.is_merged(line, digests.0, digests.1, host)? {
                return Ok(false);
            }
            self.cut_dropped(line);
            let dropped = &self.dropped;
            self.named.retain(|(at, _)| dropped.binary_search(at).is_err());
        }
        let mut fits = true;
        if pods > 1 {
            self.counts.unparsed += 1;
        } else {
            let before = (self.counts.enriched, self.counts.conflicts);
            self.counts.samples += 1;
            if !self.named.is_empty() {
                match self.look_up(line, host)? {
                    Some(found) => fits = found,
                    None => {
                        self.counts.samples -= 1;
                        self.counts.unknown_pods += 1;
                        return Ok(false);
                    }
                }
                if let Err(label) = self.add(line) {
                    let metric = plain(self.sample.name.of(line), self.sample.escaped);
                    return Err(host.repeated(&metric, label.of(line)));
                }
            }
            if !self.sample.quoted && self.sample.braces.end > 0 && fits && self.texts.came() {
                self.hold(line, before, digests);
            }
        }
        self.cut_stamp();
        if self.edits.len() > 1 {
            self.edits.sort_by_key(|edit| (edit.start, edit.end));
        }
        Ok(true)
    }

    /// Decides whether a tenant's sample passes.
    fn tenant_sample<H: Host>(&mut self, line: &[u8], host: &mut H) -> Result<bool, H::Error> {
        self.named.clear();
        self.dropped.clear();
        if self.sample.bits & self.bits != 0 && self.find(line).is_none() {
            self.counts.unparsed += 1;
            return Ok(false);
        }
        let mut strictest = if self.named.is_empty() { Verdict::Hidden } else { Verdict::Passes };
        for (at, _) in &self.named {
            let name = self.sample.pairs[*at].value.of(line);
            let verdict = match self.tenant.get(name) {
                Some(verdict) => verdict,
                None if self.undecided.get(name).is_some() => Verdict::Undecided,
                None => {
                    let verdict = host.verdict(name)?;
                    match verdict {
                        Verdict::Undecided => self.undecided.put(name, ()),
                        _ => self.tenant.put(name, verdict),
                    }
                    verdict
                }
            };
            strictest = strictest.max(verdict);
        }
        match strictest {
            Verdict::Passes => {
                if !self.sample.quoted && self.texts.came() {
                    let before = (self.counts.enriched, self.counts.conflicts);
                    self.hold(line, before, ([1; 2], [1; 2]));
                }
                return Ok(true);
            }
            Verdict::Unwanted => self.counts.namespace += 1,
            Verdict::Hidden => self.counts.hidden += 1,
            Verdict::Undecided => self.counts.undecided += 1,
        }
        Ok(false)
    }

    /// Holds the outcome for the text in the braces of this sample. `before` are the counts of
    /// enriched samples and of conflicts before it.
    fn hold(&mut self, line: &[u8], before: (u64, u64), (kept, dropped): ([u64; 2], [u64; 2])) {
        let Span { start, end } = self.sample.braces;
        let (start, end) = (start as usize, end as usize + 1);
        self.edits.sort_by_key(|edit| (edit.start, edit.end));
        let edits: Vec<Edit> = self
            .edits
            .iter()
            .map(|e| Edit { start: e.start - start, end: e.end - start, ..*e })
            .collect();
        let outcome = Outcome {
            enriched: self.counts.enriched > before.0,
            conflicts: self.counts.conflicts - before.1,
            kept,
            dropped,
        };
        self.texts.hold(&line[start..end], outcome, &edits, &self.text);
    }

    fn cut_stamp(&mut self) {
        if self.rules.strip
            && let Some(stamp) = self.sample.stamp
        {
            self.edits.push(cut(stamp.start, stamp.end));
        }
    }

    /// Finds the pairs that count: `named`, `dropped` and `pod`. Returns the number of pods, or
    /// None if a label that names a namespace stands twice.
    fn find(&mut self, line: &[u8]) -> Option<usize> {
        self.places.fill(None);
        let (mut pods, mut twice) = (0, false);
        for (at, pair) in self.sample.pairs.iter().enumerate() {
            if self.bits >> pair.bit & 1 == 0 || pair.odd_name {
                continue;
            }
            let name = pair.name.of(line);
            let drops = self.rules.drops(name);
            if drops {
                self.dropped.push(at);
            }
            if let Some(label) = self.rules.naming.iter().position(|each| same(each, name)) {
                twice |= self.places[label].is_some();
                self.places[label] = Some(at);
            } else if self.rules.pods && same(name, b"pod") && !drops {
                self.pod = Some(at);
                pods += 1;
            }
        }
        for (label, at) in self.places.iter().enumerate() {
            if let Some(at) = *at
                && !is_empty(&self.sample.pairs[at].value)
            {
                self.named.push((at, label));
                if !self.rules.each() {
                    break;
                }
            }
        }
        (!twice).then_some(pods)
    }

    fn wants_sample<H: Host>(&mut self, line: &[u8], host: &mut H) -> Result<bool, H::Error> {
        let spelled = self.sample.name.of(line);
        // A name in quotes is no other one. An empty one is never the last one.
        if same(&self.last.0, spelled) && !spelled.is_empty() && !self.sample.escaped {
            return Ok(self.last.1);
        }
        let name = plain(spelled, self.sample.escaped);
        let wanted = self.wants_metric(&name, host)?;
        self.last.0.clear();
        if !self.sample.escaped {
            self.last.0.extend_from_slice(spelled);
            self.last.1 = wanted;
        }
        Ok(wanted)
    }

    /// Whether a metric is selected, by its name and its family's. Both are unescaped.
    fn wants_metric<H: Host>(&mut self, name: &[u8], host: &mut H) -> Result<bool, H::Error> {
        let family = match name.strip_prefix(&self.family[..]) {
            Some(suffix) if suffix.is_empty() || SUFFIXES.contains(&suffix) => &self.family[..],
            _ => name,
        };
        self.key.clear();
        self.key.extend_from_slice(&name.len().to_le_bytes());
        self.key.extend_from_slice(name);
        self.key.extend_from_slice(family);
        if let Some(wanted) = self.metrics.get(&self.key) {
            return Ok(wanted);
        }
        let wanted = host.metric(name, family)?;
        self.metrics.put(&self.key, wanted);
        Ok(wanted)
    }

    fn wants_namespaces<H: Host>(&mut self, line: &[u8], host: &mut H) -> Result<bool, H::Error> {
        if self.named.is_empty() {
            // No map is asked: where keys are empty, it compares them slowly.
            let wanted = self.unnamed.map_or_else(|| host.namespace(b""), Ok)?;
            self.unnamed = Some(wanted);
            return Ok(wanted);
        }
        for (at, _) in &self.named {
            let name = self.sample.pairs[*at].value.of(line);
            let wanted = match self.namespaces.get(name) {
                Some(wanted) => wanted,
                None => {
                    let wanted = host.namespace(name)?;
                    self.namespaces.put(name, wanted);
                    wanted
                }
            };
            if !wanted {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The digests of the labels that are kept, and of those that are taken off.
    fn digests(&self, line: &[u8]) -> ([u64; 2], [u64; 2]) {
        let [mut kept, mut dropped] = [self.series.digest([1; 2]); 2];
        let mut drops = self.dropped.iter().peekable();
        for (at, pair) in self.sample.pairs.iter().enumerate() {
            let drops = drops.next_if(|each| **each == at).is_some();
            if is_empty(&pair.value) {
                continue;
            }
            let digest = if drops { &mut dropped } else { &mut kept };
            let Pair { name, value, odd_name, escaped, .. } = *pair;
            if !odd_name && !escaped && name.end + 2 == value.start {
                let both = Span { start: name.start, end: value.end }.of(line);
                digest.add(name.of(line).len(), value.of(line).len(), both);
            } else {
                let (name, value) =
                    (plain(name.of(line), odd_name), plain(value.of(line), escaped));
                digest.add(name.len(), value.len(), &[&name, &b"=\""[..], &value].concat());
            }
        }
        (kept.products, dropped.products)
    }

    /// Enters a series. Returns whether an earlier, other one equals it without the labels that are
    /// taken off.
    fn is_merged<H: Host>(
        &mut self,
        line: &[u8],
        kept: [u64; 2],
        dropped: [u64; 2],
        host: &mut H,
    ) -> Result<bool, H::Error> {
        let name = plain(self.sample.name.of(line), self.sample.escaped);
        let seen = self.series.enter(&name, kept, dropped);
        if seen == Seen::New {
            self.counts.series += 1;
            if self.counts.series > self.room {
                self.room = host.room(self.counts.series)?;
                self.counts.series = 0;
            }
        }
        self.counts.merged += u64::from(seen == Seen::Merged);
        Ok(seen == Seen::Merged)
    }

    /// Cuts the pairs that are taken off, each with one comma. The metric's name stays.
    fn cut_dropped(&mut self, line: &[u8]) {
        if self.dropped.is_empty() {
            return;
        }
        let name = self.sample.quoted.then_some(self.sample.name);
        let mut name = name.map(|name| (name.start - 1, name.end + 1));
        let (mut kept, mut taken) = (None, None); // the end of a pair that stays; what is taken off
        let mut dropped = self.dropped.iter().peekable();
        let spans = &mut self.spans;
        spans.clear();
        for (at, pair) in self.sample.pairs.iter().enumerate() {
            if let Some((start, end)) = name.take_if(|name| name.0 < pair.start) {
                spans.push((start, end, false));
            }
            let drops = dropped.next_if(|each| **each == at).is_some();
            spans.push((pair.start, pair.value.end + 1, drops));
        }
        spans.extend(name.map(|(start, end)| (start, end, false)));
        for &mut (start, end, drops) in spans {
            if drops {
                taken = Some((taken.map_or(start, |(first, _)| first), end));
            } else {
                if let Some((first, _)) = taken.take() {
                    self.edits.push(cut(first, start));
                }
                kept = Some(end);
            }
        }
        if let Some((first, last)) = taken {
            match kept {
                Some(end) => self.edits.push(cut(end, last)),
                None => {
                    let braces = &line[..self.sample.braces.end as usize];
                    let end = braces.iter().rposition(|byte| !matches!(byte, b' ' | b'\t'));
                    self.edits.push(cut(first, end.map_or(first, |end| end as u32 + 1)));
                }
            }
        }
    }

    /// Looks up the labels to add. Returns whether all of them may be remembered, or None if the
    /// sample's pod is not known.
    fn look_up<H: Host>(&mut self, line: &[u8], host: &mut H) -> Result<Option<bool>, H::Error> {
        let mut all = true;
        self.found.clear();
        self.labels.trim();
        let value = |at: usize| self.sample.pairs[at].value.of(line);
        let name = |at: usize| plain(value(at), self.sample.pairs[at].escaped);
        let rendered = &mut self.rendered;
        if let Some(at) = self.pod.filter(|at| !value(*at).is_empty()) {
            let (namespace, pod) = (value(self.named[0].0), value(at));
            let kind = self.rules.naming.len();
            self.key.clear();
            self.key.extend_from_slice(namespace);
            self.key.push(b'"');
            self.key.extend_from_slice(pod);
            let known = match self.labels.get(kind, &self.key) {
                Some(known) => known,
                None => {
                    let fits = namespace.len() <= MAX_NAMESPACE && pod.len() <= MAX_POD;
                    all &= fits;
                    rendered.clear();
                    let passes = host.pod(&name(self.named[0].0), &name(at), rendered)?;
                    let found = passes.then_some(&rendered[..]);
                    self.labels.hold(kind, fits.then_some(&self.key[..]), found)
                }
            };
            match known {
                Some(number) => self.found.push((at, number)),
                None => return Ok(None),
            }
        }
        for (at, label) in &self.named {
            let namespace = value(*at);
            let kind = if self.rules.each() { *label } else { 0 };
            let known = match self.labels.get(kind, namespace) {
                Some(known) => known,
                None => {
                    let fits = namespace.len() <= MAX_NAMESPACE;
                    all &= fits;
                    rendered.clear();
                    host.labels(&name(*at), rendered)?;
                    self.labels.hold(kind, fits.then_some(namespace), Some(rendered))
                }
            };
            self.found.extend(known.map(|number| (*at, number)));
        }
        Ok(Some(all))
    }

    /// Adds the labels that were found. The error is the name at which the sample repeats labels
    /// too often.
    fn add(&mut self, line: &[u8]) -> Result<(), Span> {
        let before = self.edits.len();
        let (mut bits, mut simple) = (self.sample.bits, true);
        for (at, number) in &self.found {
            let added = self.labels.added(*number);
            simple &= added.bits & bits == 0;
            bits |= added.bits;
            if !added.bytes.is_empty() {
                let end = self.sample.pairs[*at].value.end as usize + 1;
                self.edits.push(insert(&mut self.text, end, &[&added.bytes]));
            }
        }
        if !simple {
            self.edits.truncate(before);
            self.add_beside(line)?;
        }
        self.counts.enriched += u64::from(self.edits.len() > before);
        Ok(())
    }

    /// Adds the labels that were found, if some of them may have names that the sample bears, or
    /// the same names. Of two labels with one name, the first one found is added.
    fn add_beside(&mut self, line: &[u8]) -> Result<(), Span> {
        let labels = &self.labels;
        let mut repeats = 0;
        let found: Vec<&Added> =
            self.found.iter().map(|(_, number)| labels.added(*number)).collect();
        let bits = found.iter().fold(0, |bits, added| bits | added.bits);
        let mut borne: Vec<Vec<bool>> =
            found.iter().map(|added| vec![false; added.pairs.len()]).collect();
        for (place, Pair { name, value, bit, odd_name, .. }) in self.sample.pairs.iter().enumerate()
        {
            if bits >> bit & 1 == 0 || *odd_name || self.dropped.binary_search(&place).is_ok() {
                continue;
            }
            let mut first = true;
            for (added, borne) in found.iter().zip(&mut borne) {
                let Some(at) = added.find(name.of(line)) else { continue };
                if first {
                    self.counts.conflicts += u64::from(!borne[at]);
                    if self.rules.overwrite {
                        repeats += usize::from(borne[at]);
                        if repeats > MAX_REPEATS {
                            return Err(*name);
                        }
                        let new = added.pairs[at].1.of(&added.bytes);
                        let mut edit = insert(&mut self.text, value.end as usize + 1, &[new]);
                        edit.start = value.start as usize - 1;
                        self.edits.push(edit);
                    }
                }
                first = false;
                borne[at] = true;
            }
        }
        for (number, ((place, _), added)) in self.found.iter().zip(&found).enumerate() {
            let start = self.text.len();
            for (at, (name, value)) in added.pairs.iter().enumerate() {
                let (name, value) = (name.of(&added.bytes), value.of(&added.bytes));
                let taken = found[..number].iter().any(|earlier| earlier.find(name).is_some());
                if !taken && !borne[number][at] {
                    insert(&mut self.text, 0, &[b",", name, b"=", value]);
                }
            }
            if self.text.len() > start {
                let end = self.sample.pairs[*place].value.end as usize + 1;
                self.edits.push(Edit { start: end, end, text: (start, self.text.len()) });
            }
        }
        Ok(())
    }
}

/// Appends parts to a text. Returns the edit that inserts them at a position.
fn insert(text: &mut Vec<u8>, at: usize, parts: &[&[u8]]) -> Edit {
    let start = text.len();
    parts.iter().for_each(|part| text.extend_from_slice(part));
    Edit { start: at, end: at, text: (start, text.len()) }
}

/// Bytes of a buffer for a usual block, with its labels.
const BLOCK: usize = 512 << 10;

/// Bytes of a buffer for the parts of a usual line.
const LINE: usize = 32 << 10;

/// Gives back the memory of a buffer whose content is not needed any more, if it is more than some.
fn shrink<T>(buffer: &mut Vec<T>, bytes: usize) {
    if buffer.capacity() * size_of::<T>() > bytes {
        *buffer = Vec::new();
    }
}

/// The edit that takes a span off.
fn cut(start: u32, end: u32) -> Edit {
    Edit { start: start as usize, end: end as usize, text: (0, 0) }
}

fn is_empty(span: &Span) -> bool {
    span.start == span.end
}

type Text<'a> = std::borrow::Cow<'a, [u8]>;

/// The value that is spelled as `text` between quotes.
fn plain(text: &[u8], escaped: bool) -> Text<'_> {
    if !escaped {
        return Text::Borrowed(text);
    }
    let mut value = Vec::new();
    grammar::unescape(text, &mut value);
    Text::Owned(value)
}
