//! `cargo bench -p swarm-bench --bench watch`.

fn main() -> std::process::ExitCode {
    swarm_bench::runner::main(swarm_bench::watch::ROWS)
}
