//! `cargo bench -p swarm-bench --bench store`.

fn main() -> std::process::ExitCode {
    swarm_bench::runner::main(swarm_bench::store::ROWS)
}
