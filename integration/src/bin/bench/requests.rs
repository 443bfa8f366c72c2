//! CPU time of the server per operation of the workloads.

use tiercache_integration::process;
use tiercache_integration::workload::Workload;

use crate::figures::Samples;
use crate::loaded;
use crate::options::Options;

/// Medians of alternating rounds.
pub fn cpu(options: &Options) {
    let mut samples = Workload::ALL.map(|_| Samples::new(&options.contenders));
    for _ in 0..options.rounds {
        for (column, contender) in options.contenders.iter().enumerate() {
            let server = loaded(&[], &contender.binary, &[]);
            for (workload, samples) in Workload::ALL.iter().zip(&mut samples) {
                let before = process::cpu_time(server.pid());
                let done = workload
                    .run(options.protocol, server.address(), options.operations)
                    .expect("the server answers the workload");
                let spent = process::cpu_time(server.pid()) - before;
                samples.add(column, spent.as_nanos() as f64 / done as f64 / 1000.0);
            }
        }
    }
    for (workload, samples) in Workload::ALL.iter().zip(&samples) {
        samples.print(&format!("CPU, {}", workload.name()), 2, " µs");
    }
}
