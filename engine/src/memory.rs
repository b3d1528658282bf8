//! The memory of one exposition: labels, verdicts and series, each bounded in bytes.
//!
//! The maps' hashes have random keys, so no input can choose names that collide.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

/// Bytes that the labels of namespaces and pods take, at most. Above it all are forgotten, and
/// asked for again.
pub const MAX_LABELS: usize = 4 << 20;

/// Bytes that the verdicts about names take, at most.
pub const MAX_VERDICTS: usize = 2 << 20;

const ENTRY: usize = 250; // bytes for an entry besides its bytes, approximately

type Map<V> = HashMap<Box<[u8]>, V>;

/// Labels to add to a sample.
#[derive(Debug, Default)]
pub struct Added {
    /// The bytes to add, such as `,team="a"`.
    pub bytes: Vec<u8>,
    /// Their names and their values, with quotes.
    pub pairs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The bits of the names.
    pub bits: u64,
    index: Map<usize>, // of many pairs
}

impl Added {
    /// Labels with some bytes, and the names and quoted values in these.
    pub fn new(bytes: Vec<u8>, pairs: Vec<(Vec<u8>, Vec<u8>)>) -> Added {
        let bits = pairs.iter().fold(0, |bits, pair| bits | 1 << crate::grammar::bit(&pair.0));
        let many = if pairs.len() > 8 { &pairs[..] } else { &[] };
        let places = many.iter().enumerate();
        let index = places.map(|(at, pair)| (pair.0[..].into(), at)).collect();
        Added { bytes, pairs, bits, index }
    }

    /// The place of a name.
    pub fn find(&self, name: &[u8]) -> Option<usize> {
        if self.pairs.len() > 8 {
            return self.index.get(name).copied();
        }
        self.pairs.iter().position(|pair| pair.0 == name)
    }

    fn size(&self) -> usize {
        let pairs = self.pairs.iter().map(|pair| 2 * pair.0.len() + pair.1.len() + ENTRY);
        self.bytes.len() + pairs.sum::<usize>() + ENTRY
    }
}

/// The labels that were asked for.
#[derive(Debug, Default)]
pub struct Labels {
    known: Vec<Map<Option<usize>>>,
    added: Vec<Added>,
    size: usize,
}

impl Labels {
    /// A memory for some kinds of keys.
    pub fn new(kinds: usize) -> Labels {
        Labels { known: (0..kinds).map(|_| Map::new()).collect(), ..Labels::default() }
    }

    /// The labels of a key, as a number; None if they are not known, Some(None) if there are none
    /// and the sample is left out.
    pub fn get(&self, kind: usize, key: &[u8]) -> Option<Option<usize>> {
        self.known[kind].get(key).copied()
    }

    /// Holds labels until the next `trim`; with a key they are remembered.
    pub fn hold(&mut self, kind: usize, key: Option<&[u8]>, added: Option<Added>) -> Option<usize> {
        self.size += added.as_ref().map_or(ENTRY, Added::size) + key.map_or(0, <[u8]>::len);
        let number = added.map(|added| {
            self.added.push(added);
            self.added.len() - 1
        });
        if let Some(key) = key {
            self.known[kind].insert(key.into(), number);
        }
        number
    }

    /// The labels with a number.
    pub fn added(&self, number: usize) -> &Added {
        &self.added[number]
    }

    /// Forgets all labels if they take too many bytes. Their numbers hold until then.
    pub fn trim(&mut self) {
        if self.size > MAX_LABELS {
            self.known.iter_mut().for_each(Map::clear);
            self.added.clear();
            self.size = 0;
        }
    }
}

/// Verdicts about names.
#[derive(Debug, Default)]
pub struct Verdicts {
    known: Map<bool>,
    size: usize,
}

impl Verdicts {
    /// The verdict about a key.
    pub fn get(&self, key: &[u8]) -> Option<bool> {
        self.known.get(key).copied()
    }

    /// Remembers a verdict. All others are forgotten if they take too many bytes.
    pub fn put(&mut self, key: &[u8], verdict: bool) {
        self.size += key.len() + ENTRY;
        if self.size > MAX_VERDICTS {
            self.known.clear();
            self.size = key.len() + ENTRY;
        }
        self.known.insert(key.into(), verdict);
    }
}

/// A hash of 122 bits: two polynomials over the bytes, modulo the prime 2**61 - 1.
///
/// For two different texts of n bytes, at most n / 7 + 1 of the 2**61 keys of each polynomial give
/// the same hash, whoever chose the texts without knowing the keys. That is one chance in 2**90 for
/// texts of a megabyte.
#[derive(Clone, Copy, Debug)]
pub struct Digest {
    keys: [u64; 2],
    sums: [u64; 2],
}

const PRIME: u64 = (1 << 61) - 1;

impl Digest {
    /// An empty digest with random keys.
    pub fn new() -> Digest {
        let key = || RandomState::new().build_hasher().finish() % (PRIME - 1) + 1;
        Digest { keys: [key(), key()], sums: [0, 0] }
    }

    /// Adds a text, in a way that keeps it apart from those before and behind it.
    pub fn add(&mut self, text: &[u8]) {
        self.step(text.len() as u64 + 1);
        let (words, rest) = text.as_chunks::<7>();
        for [a, b, c, d, e, f, g] in words {
            self.step(u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, 0]));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.step(u64::from_le_bytes(last));
        }
    }

    fn step(&mut self, word: u64) {
        for (sum, key) in self.sums.iter_mut().zip(self.keys) {
            let product = u128::from(*sum) * u128::from(key) + u128::from(word);
            let folded = (product as u64 & PRIME) + (product >> 61) as u64;
            *sum = if folded >= PRIME { folded - PRIME } else { folded };
        }
    }

    /// The hash.
    pub fn sums(&self) -> [u64; 2] {
        self.sums
    }
}

impl Default for Digest {
    fn default() -> Digest {
        Digest::new()
    }
}

/// Takes the digest itself as its hash.
#[derive(Default)]
pub struct Taken(u64);

impl Hasher for Taken {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, sum: u64) {
        self.0 = self.0.rotate_left(3) ^ sum;
    }
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
struct Sums([u64; 2]);

impl std::hash::Hash for Sums {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0[0]);
        state.write_u64(self.0[1]);
    }
}

/// The series of an exposition: the digest of a series without some labels, and of these labels.
#[derive(Debug, Default)]
pub struct Series {
    known: HashMap<Sums, [u64; 2], BuildHasherDefault<Taken>>,
    empty: Digest,
}

/// The outcome for a series.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// The first one with these labels that are kept.
    New,
    /// The same one again.
    Again,
    /// Another one. Without the labels that are dropped, it would be taken for the first one.
    Merged,
}

impl Series {
    /// Enters a series: its name and labels that are kept, and the labels that are dropped.
    pub fn enter(&mut self, kept: Digest, dropped: Digest) -> Seen {
        let key = Sums(kept.sums());
        match self.known.get(&key) {
            None => {
                self.known.insert(key, dropped.sums());
                Seen::New
            }
            Some(known) if *known == dropped.sums() => Seen::Again,
            Some(_) => Seen::Merged,
        }
    }

    /// An empty digest with the keys of this exposition.
    pub fn digest(&self) -> Digest {
        self.empty
    }

    /// Forgets all series.
    pub fn forget(&mut self) {
        self.known = HashMap::default();
    }
}
