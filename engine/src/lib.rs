//! The compiled engine of kmproxy, as a module of Python.
//!
//! `engine` does the work, `grammar` reads lines, `memory` is bounded. This file alone knows Python.

#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::{PyIndexError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

pub mod engine;
pub mod grammar;
pub mod memory;

use engine::{Engine, Host, Rules, Verdict};
use memory::Seen;

/// Questions to an object of Python, by the names of its methods.
struct Asking<'a, 'py>(&'a Bound<'py, PyAny>);

type Text = (Vec<u8>, Vec<u8>);

impl<'py> Asking<'_, 'py> {
    fn bytes(&self, text: &[u8]) -> Bound<'py, PyBytes> {
        PyBytes::new(self.0.py(), text)
    }
}

impl Host for Asking<'_, '_> {
    type Error = PyErr;

    fn labels(&mut self, namespace: &[u8], rendered: &mut Vec<u8>) -> PyResult<()> {
        let name = intern!(self.0.py(), "ask_labels");
        let found = self.0.call_method1(name, (self.bytes(namespace),))?;
        rendered.extend_from_slice(found.extract()?);
        Ok(())
    }

    fn pod(&mut self, namespace: &[u8], pod: &[u8], rendered: &mut Vec<u8>) -> PyResult<bool> {
        let name = intern!(self.0.py(), "ask_pod");
        let found = self.0.call_method1(name, (self.bytes(namespace), self.bytes(pod)))?;
        let found = found.extract::<Option<&[u8]>>()?;
        rendered.extend_from_slice(found.unwrap_or_default());
        Ok(found.is_some())
    }

    fn metric(&mut self, name: &[u8], family: &[u8]) -> PyResult<bool> {
        let asked = (self.bytes(name), self.bytes(family));
        self.0.call_method1(intern!(self.0.py(), "ask_metric"), asked)?.extract()
    }

    fn namespace(&mut self, namespace: &[u8]) -> PyResult<bool> {
        let asked = (self.bytes(namespace),);
        self.0.call_method1(intern!(self.0.py(), "ask_namespace"), asked)?.extract()
    }

    fn verdict(&mut self, namespace: &[u8]) -> PyResult<Verdict> {
        let asked = (self.bytes(namespace),);
        let verdict = self.0.call_method1(intern!(self.0.py(), "ask_verdict"), asked)?;
        Ok(match verdict.extract::<u8>()? {
            0 => Verdict::Passes,
            1 => Verdict::Unwanted,
            2 => Verdict::Hidden,
            _ => Verdict::Undecided,
        })
    }

    fn repeated(&mut self, metric: &[u8], label: &[u8]) -> PyErr {
        let asked = (self.bytes(metric), self.bytes(label));
        match self.0.call_method1(intern!(self.0.py(), "refuse_repeats"), asked) {
            Err(error) => error,
            Ok(_) => PyRuntimeError::new_err("the host did not refuse a sample"),
        }
    }

    fn room(&mut self, series: u64) -> PyResult<u64> {
        self.0.call_method1(intern!(self.0.py(), "ask_room"), (series,))?.extract()
    }
}

/// Counts of a block, in the order of the stub.
type Counts = (u64, u64, u64, u64, u64, u64, u64, u64, u64, u64);

/// The engine of one exposition. It refers to no object of Python.
#[pyclass(name = "Engine", module = "kmproxy_engine")]
#[derive(Debug)]
struct PyEngine {
    engine: Engine,
    broken: bool,
}

#[pymethods]
impl PyEngine {
    #[new]
    #[pyo3(signature = (*, naming, prefixes, pods, overwrite, metrics, namespaces, drop, strip, tenant))]
    #[allow(clippy::too_many_arguments)] // each of them is named
    fn new(
        naming: Vec<Vec<u8>>,
        prefixes: Vec<Vec<u8>>,
        pods: bool,
        overwrite: bool,
        metrics: bool,
        namespaces: bool,
        drop: Vec<Vec<u8>>,
        strip: bool,
        tenant: bool,
    ) -> PyEngine {
        let rules =
            Rules { naming, prefixes, pods, overwrite, metrics, namespaces, drop, strip, tenant };
        PyEngine { engine: Engine::new(rules), broken: false }
    }

    /// Reads whole lines, each with its newline: `first`, then `data` from `start` to `end`.
    #[allow(clippy::too_many_arguments)] // as bytes are not copied
    fn read<'py>(
        &mut self,
        py: Python<'py>,
        first: &[u8],
        data: &[u8],
        start: usize,
        end: usize,
        room: u64,
        host: &Bound<'py, PyAny>,
    ) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>, Counts)> {
        if self.broken {
            return Err(PyRuntimeError::new_err("the compiled engine has failed before"));
        }
        let Some(data) = data.get(start..end) else {
            return Err(PyIndexError::new_err("the span is not in the data"));
        };
        let mut asking = Asking(host);
        let engine = &mut self.engine;
        engine.output = OUTPUT.take();
        let read =
            catch_unwind(AssertUnwindSafe(|| engine.read(&[first, data], room, &mut asking)));
        let Ok(read) = read else {
            self.broken = true;
            let place = PANIC.take();
            let problem = format!("the compiled engine failed on a block of lines{place}");
            return Err(PyRuntimeError::new_err(problem));
        };
        let texts = read.map(|()| [&engine.output, &engine.odd].map(|text| PyBytes::new(py, text)));
        engine.shrink();
        OUTPUT.set(std::mem::take(&mut engine.output));
        let [output, odd] = texts?;
        let c = &engine.counts;
        let counts = (
            c.samples,
            c.enriched,
            c.unparsed,
            c.conflicts,
            c.unknown_pods,
            c.metric,
            c.namespace,
            c.merged,
            c.hidden,
            c.undecided,
        );
        Ok((output, odd, counts))
    }

    /// The number of series that the last call of `read` entered, and for which no room was taken.
    fn take_series(&mut self) -> u64 {
        std::mem::take(&mut self.engine.counts.series)
    }

    /// Enters a series: None if it is new, else whether it is merged.
    fn enter(&mut self, metric: &[u8], kept: Vec<Text>, dropped: Vec<Text>) -> Option<bool> {
        let [kept, dropped] = [kept, dropped].map(|labels| {
            let mut digest = self.engine.series.digest([1; 2]);
            for (name, value) in labels {
                let both = [&name[..], b"=\"", &value].concat();
                digest.add(name.len(), value.len(), &both);
            }
            digest
        });
        match self.engine.series.enter(metric, kept.products, dropped.products) {
            Seen::New => None,
            seen => Some(seen == Seen::Merged),
        }
    }

    /// Forgets all series.
    fn forget(&mut self) {
        self.engine.series.forget();
    }

    #[getter]
    fn family<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.engine.family)
    }

    #[setter]
    fn set_family(&mut self, family: &[u8]) {
        self.engine.set_family(family);
    }
}

thread_local! {
    /// The buffer for the output of all engines, of which one reads at a time.
    static OUTPUT: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
    /// Where the last panic began.
    static PANIC: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
}

/// Whether a line that the engine takes for no sample is read once more, by Python.
#[pyfunction]
fn may_be_sample(line: &[u8]) -> bool {
    grammar::may_be_sample(line)
}

/// The interface, which kmproxy compares with the one that it knows.
const INTERFACE: u32 = 3;

#[pymodule]
fn kmproxy_engine(module: &Bound<'_, PyModule>) -> PyResult<()> {
    // A panic becomes an exception. The usual hook would print it to standard error, where log
    // lines are.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|place| format!(" ({}:{})", place.file(), place.line()));
        PANIC.set(place.unwrap_or_default());
    }));
    module.add("INTERFACE", INTERFACE)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(may_be_sample, module)?)?;
    module.add_class::<PyEngine>()
}
