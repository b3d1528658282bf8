//! The compiled engine of kmproxy, as a module of Python.
//!
//! `engine` does the work, `grammar` reads lines, `memory` is bounded. This file alone knows Python.

#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

pub mod engine;
pub mod grammar;
pub mod memory;

use engine::{Engine, Host, Rules};
use memory::{Added, Seen};

/// Questions to Python.
#[derive(Debug)]
struct Questions {
    labels: Py<PyAny>,
    pod: Py<PyAny>,
    metric: Py<PyAny>,
    namespace: Py<PyAny>,
    room: Py<PyAny>,
}

struct Asking<'py, 'q>(Python<'py>, &'q Questions);

type Pairs = (Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>);

impl Host for Asking<'_, '_> {
    type Error = PyErr;

    fn labels(&mut self, label: usize, namespace: &[u8]) -> PyResult<Added> {
        let asked = (label, PyBytes::new(self.0, namespace));
        let (bytes, pairs): Pairs = self.1.labels.call1(self.0, asked)?.extract(self.0)?;
        Ok(Added::new(bytes, pairs))
    }

    fn pod(&mut self, namespace: &[u8], pod: &[u8]) -> PyResult<Option<Added>> {
        let asked = (PyBytes::new(self.0, namespace), PyBytes::new(self.0, pod));
        let found: Option<Pairs> = self.1.pod.call1(self.0, asked)?.extract(self.0)?;
        Ok(found.map(|(bytes, pairs)| Added::new(bytes, pairs)))
    }

    fn metric(&mut self, name: &[u8], family: &[u8]) -> PyResult<bool> {
        let asked = (PyBytes::new(self.0, name), PyBytes::new(self.0, family));
        self.1.metric.call1(self.0, asked)?.extract(self.0)
    }

    fn namespace(&mut self, namespace: &[u8]) -> PyResult<bool> {
        self.1.namespace.call1(self.0, (PyBytes::new(self.0, namespace),))?.extract(self.0)
    }

    fn room(&mut self, series: u64) -> PyResult<u64> {
        self.1.room.call1(self.0, (series,))?.extract(self.0)
    }
}

/// Counts of a block, in the order of the attributes of the stub.
type Counts = (u64, u64, u64, u64, u64, u64, u64, u64, u64);

/// The engine of one exposition.
#[pyclass(name = "Engine", module = "kmproxy_engine")]
#[derive(Debug)]
struct PyEngine {
    engine: Engine,
    questions: Questions,
    broken: bool,
}

#[pymethods]
impl PyEngine {
    #[new]
    #[pyo3(signature = (*, naming, each, pods, overwrite, metrics, namespaces, drop, strip,
        ask_labels, ask_pod, ask_metric, ask_namespace, ask_room))]
    #[allow(clippy::too_many_arguments)] // each of them is named
    fn new(
        naming: Vec<Vec<u8>>,
        each: bool,
        pods: bool,
        overwrite: bool,
        metrics: bool,
        namespaces: bool,
        drop: Vec<Vec<u8>>,
        strip: bool,
        ask_labels: Py<PyAny>,
        ask_pod: Py<PyAny>,
        ask_metric: Py<PyAny>,
        ask_namespace: Py<PyAny>,
        ask_room: Py<PyAny>,
    ) -> PyEngine {
        let rules = Rules { naming, each, pods, overwrite, metrics, namespaces, drop, strip };
        let questions = Questions {
            labels: ask_labels,
            pod: ask_pod,
            metric: ask_metric,
            namespace: ask_namespace,
            room: ask_room,
        };
        PyEngine { engine: Engine::new(rules), questions, broken: false }
    }

    /// Reads whole lines, each with its newline.
    fn read<'py>(
        &mut self,
        py: Python<'py>,
        block: Bound<'py, PyBytes>,
        room: u64,
    ) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyBytes>, Counts)> {
        if self.broken {
            return Err(PyRuntimeError::new_err("the compiled engine has failed before"));
        }
        let text = block.as_bytes();
        let mut host = Asking(py, &self.questions);
        let engine = &mut self.engine;
        let read = catch_unwind(AssertUnwindSafe(|| engine.read(text, room, &mut host)));
        let Ok(read) = read else {
            self.broken = true;
            return Err(PyRuntimeError::new_err("the compiled engine failed on a block of lines"));
        };
        read?;
        let output = if engine.changed { PyBytes::new(py, &engine.output) } else { block };
        let odd = PyBytes::new(py, &engine.odd);
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
            c.series,
        );
        Ok((output, odd, counts))
    }

    /// Enters a series: None if it is new, else whether it is merged.
    fn enter(&mut self, kept: Vec<Vec<u8>>, dropped: Vec<Vec<u8>>) -> Option<bool> {
        let digests = [kept, dropped].map(|parts| {
            let mut digest = self.engine.series.digest();
            parts.iter().for_each(|part| digest.add(part));
            digest
        });
        match self.engine.series.enter(digests[0], digests[1]) {
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

/// The interface, which kmproxy compares with the one that it knows.
const INTERFACE: u32 = 1;

#[pymodule]
fn kmproxy_engine(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("INTERFACE", INTERFACE)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<PyEngine>()
}
