//! Properties of the engine for all bytes, without Python: it never panics, lines know nothing of
//! each other, without rules nothing changes, twice is once, and each line is counted once.
//!
//! The first byte of the input chooses the rules. The rest are the lines.

#![no_main]

// The crate itself would need Python's library.
#[path = "../../src/engine.rs"]
mod engine;
#[path = "../../src/grammar.rs"]
mod grammar;
#[path = "../../src/memory.rs"]
mod memory;

use engine::{Counts, Engine, Host, Rules};
use libfuzzer_sys::fuzz_target;

/// The error of a sample that repeats labels that are overwritten too often.
#[derive(Debug)]
struct Repeated;

struct Answers {
    labels: bool,
}

impl Host for Answers {
    type Error = Repeated;

    fn labels(&mut self, namespace: &[u8], rendered: &mut Vec<u8>) -> Result<(), Repeated> {
        assert!(!namespace.is_empty());
        rendered.extend_from_slice(match (self.labels, namespace) {
            (false, _) | (_, [b'b', ..]) => b"",
            (_, [b'w', ..]) => br#",team="front",tier="a\"b""#,
            (_, [b'x', ..]) => br#",s_team="s",le="1""#,
            _ => br#",team="t""#,
        });
        Ok(())
    }

    fn pod(&mut self, _: &[u8], pod: &[u8], rendered: &mut Vec<u8>) -> Result<bool, Repeated> {
        assert!(!pod.is_empty());
        if self.labels && pod.len() % 3 == 1 {
            rendered.extend_from_slice(br#",workload="w",team="p""#);
        }
        Ok(!self.labels || pod.len() % 3 > 0)
    }

    fn metric(&mut self, name: &[u8], family: &[u8]) -> Result<bool, Repeated> {
        Ok(!self.labels || (name.first() != Some(&b'u') && family.first() != Some(&b'u')))
    }

    fn namespace(&mut self, namespace: &[u8]) -> Result<bool, Repeated> {
        Ok(!self.labels || namespace.first() != Some(&b's'))
    }

    fn repeated(&mut self, _: &[u8], label: &[u8]) -> Repeated {
        assert!(!label.is_empty());
        Repeated
    }

    fn room(&mut self, _: u64) -> Result<u64, Repeated> {
        Ok(2)
    }
}

fn names(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

fn rules(flags: u8) -> Rules {
    let some = |bit: u8| flags >> bit & 1 == 1;
    Rules {
        naming: if some(0) { names(&["namespace", "source"]) } else { names(&["namespace"]) },
        prefixes: if some(0) && some(1) { names(&["", "s_"]) } else { vec![] },
        pods: !some(0) && some(1),
        overwrite: some(2),
        metrics: some(3),
        namespaces: some(4),
        drop: if some(5) { names(&["le", "id"]) } else { vec![] },
        strip: some(6),
        tenant: false,
    }
}

fn read(rules: Rules, labels: bool, block: &[u8]) -> Result<(Vec<u8>, Counts), Repeated> {
    let mut engine = Engine::new(rules);
    // The blocks' border is at the end of some line.
    let border = memchr::memchr_iter(b'\n', block).nth(3).map_or(0, |end| end + 1);
    let (first, second) = block.split_at(border);
    engine.read(&[first, second], 1, &mut Answers { labels })?;
    Ok((engine.output, engine.counts))
}

/// All that is counted for a line.
fn sums(counts: &Counts) -> [u64; 8] {
    let c = counts;
    [
        c.samples,
        c.enriched,
        c.unparsed,
        c.conflicts,
        c.unknown_pods,
        c.metric,
        c.namespace,
        c.merged,
    ]
}

fuzz_target!(|data: &[u8]| {
    let Some((flags, text)) = data.split_first() else { return };
    let mut block = text.to_vec();
    block.push(b'\n');
    let lines: Vec<&[u8]> = block.split_inclusive(|byte| *byte == b'\n').collect();
    let Ok((output, counts)) = read(rules(*flags), true, &block) else {
        assert!(rules(*flags).overwrite);
        return;
    };
    assert!(output.is_empty() || output.ends_with(b"\n"));

    let silent = lines.iter().filter(|line| {
        let rest = line.trim_ascii_start();
        rest.first() == Some(&b'#') && line.iter().take(line.len() - rest.len()).all(blank)
            || line[..line.len() - 1].iter().all(blank)
    });
    let left_out = counts.unknown_pods + counts.metric + counts.namespace + counts.merged;
    let known = counts.samples + counts.unparsed + left_out + silent.count() as u64;
    assert_eq!(known, lines.len() as u64);

    if flags & 0b1000_0000 != 0 {
        let names = rules(*flags & 3);
        let tenant = Rules {
            tenant: true,
            pods: false,
            naming: names.naming,
            prefixes: names.prefixes,
            ..Rules::default()
        };
        let (passed, counts) = read(tenant, true, &block).unwrap();
        let left_out = counts.unparsed + counts.namespace + counts.hidden;
        let passing = passed.split_inclusive(|byte| *byte == b'\n').count() as u64;
        assert!(passing + left_out <= lines.len() as u64);
        assert_eq!(counts.undecided, 0);
    }
    if flags & 0b0010_1000 == 0 {
        let mut alone = (Vec::new(), [0; 8]);
        for line in &lines {
            let (output, counts) = read(rules(*flags), true, line).unwrap();
            alone.0.extend(output);
            alone.1.iter_mut().zip(sums(&counts)).for_each(|(sum, count)| *sum += count);
        }
        assert_eq!(alone, (output.clone(), sums(&counts)));
    }
    if flags & 0b0110_0000 == 0 {
        assert_eq!(read(rules(*flags), false, &block).unwrap().0, block);
    }
    if flags & 0b0010_0000 == 0 {
        let again = read(rules(*flags), true, &output).unwrap();
        assert_eq!(again.0, output);
        assert_eq!(again.1.samples, counts.samples);
    }
});

fn blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}
