//! `cargo bench -p swarm-bench --bench scheduler`.

fn main() -> std::process::ExitCode {
    swarm_bench::runner::main(swarm_bench::scheduler::ROWS)
}
