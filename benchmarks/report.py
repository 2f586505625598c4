"""Writes the measured figures into docs/benchmarks.md.

    python -m benchmarks.report

Reads `benchmarks/results/*.json`, which the benchmarks write, and replaces
what stands between the markers `<!-- NAME -->` and `<!-- end of NAME -->`.
"""

import json
import pathlib
import re

from benchmarks.timing import RESULTS

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "benchmarks.md"


def _table(head: list, rows: list) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _origin(results: dict) -> str:
    machine = results["machine"]
    versions = ", ".join(f"{n} {v}" for n, v in machine["versions"].items())
    return (
        f"`{results['command']}`, {machine['date']}; {machine['processor']}, "
        f"{machine['cores']} cores, {machine['memory_gib']} GiB; {versions}; "
        f"processor in use by others before: {_percent(machine)}."
    )


def _percent(machine: dict) -> str:
    share = machine["busy_before"]
    return "not known" if share is None else f"{share:.0%}"


def training_step(results: dict) -> str:
    """Images a second of each network, and the ratios."""
    head = ["network"]
    rows, notes = [], []
    for network in results["networks"]:
        rates = network["images_per_second"]
        head = ["network", *rates]
        name = f"{network['network']} channels"
        rows.append([name, *[f"{rate:,.0f}" for rate in rates.values()]])
        for mode, entry in network["ratio"].items():
            notes.append(
                f"- {name}: {entry['ratio']:.2f} times {mode} PyTorch in its "
                f"faster format (aim: {entry['target_ratio']})."
            )
    unit = "Images a second, medians:"
    return "\n\n".join([unit, _table(head, rows), "\n".join(notes)])


def vqgan_step(results: dict) -> str:
    """Seconds, share of a convolution's rate and memory of each process."""
    names = list(results["peak_mb"])
    rows, notes = [], []
    for task, seconds in results["median_seconds"].items():
        shares = results["share_of_convolution"][task]
        cells = [f"{seconds[n]:.2f} ({shares[n]:.0%})" for n in names]
        rows.append([f"{task}, seconds", *cells])
        ratios = dict(results["ratio"][task])
        target = ratios.pop("target_ratio")
        notes += [
            f"- {task}: {ratio:.2f} times {name} (aim for eager: {target})."
            for name, ratio in ratios.items()
        ]
    peaks = [f"{results['peak_mb'][name]:,}" for name in names]
    rows.append(["most memory held, MB", *peaks])
    rate = results["convolution_gflops_per_second"]
    total = results["gflops"]["step"] / 1000
    text = (
        f"Medians; in brackets the share of {rate:.0f} GFLOP/s, which a bare "
        f"3x3 convolution reached in the same rounds. The step needs "
        f"{total:.2f} TFLOP."
    )
    return "\n\n".join([text, _table(["", *names], rows), "\n".join(notes)])


def step_overhead(results: dict) -> str:
    """Milliseconds of both steps, and images a second of replicas."""
    times = results["median_ms"]
    head = [*times, "ratio", "aim"]
    row = [f"{value:.1f}" for value in times.values()]
    row += [f"{results['ratio']:.3f}", f"at most {results['target_ratio']}"]
    rates = results["images_per_second"]
    return "\n\n".join(
        [
            "Milliseconds of a step, medians:",
            _table(head, [row]),
            "Images a second on the same two cores, medians:",
            _table(list(rates), [[f"{rate:,.0f}" for rate in rates.values()]]),
        ]
    )


def nearest_code(results: dict) -> str:
    """Times beside the bare matrix product, and memory."""
    parts = []
    if results.get("time"):
        names = list(results["time"][0]["median_ms"])
        rows = []
        for entry in results["time"]:
            cells = [" x ".join(f"{n:,}" for n in entry["shape"])]
            for name in names:
                cell = f"{entry['median_ms'][name]:.1f}"
                if name in entry["ratio"]:
                    cell += f" ({entry['ratio'][name]:.2f}x)"
                cells.append(cell)
            rows.append([*cells, f"{entry['target_ratio']}x"])
        head = ["vectors x codes x dim", *names, "aim"]
        parts += ["Milliseconds, medians:", _table(head, rows)]
    if results.get("memory"):
        names = list(results["memory"][0]["peak_extra_mb"])
        rows = []
        for entry in results["memory"]:
            cells = [" x ".join(f"{n:,}" for n in entry["shape"])]
            for value in entry["peak_extra_mb"].values():
                text = f"(needs {entry['full_matrix_mb']:,.0f})"
                cells.append(text if value is None else f"{value:,.0f}")
            rows.append([*cells, f"{entry['target_mb']}"])
        head = ["vectors x codes x dim", *names, "aim"]
        parts += ["Peak extra memory, MB:", _table(head, rows)]
    return "\n\n".join(parts)


def import_time(results: dict) -> str:
    """Seconds of both imports."""
    seconds = results["seconds"]
    head = [*[f"import {name}" for name in seconds], "difference", "aim"]
    values = [*seconds.values(), results["extra_seconds"]]
    row = [f"{value:.2f}" for value in values]
    row.append(f"at most {results['target_seconds']}")
    return "\n\n".join(["Seconds, medians:", _table(head, [row])])


def accelerator(results: dict) -> str:
    """Rates, shares of the peak and memory of each model and dtype."""
    head = ["", "keras_vq, images/s", "torch, images/s", "ratio"]
    head += ["keras_vq, MB", "torch, MB"]
    rows, notes, commands = [], [], []
    for entry in results["entries"]:
        name = f"{entry['model']}, {entry['dtype']}"
        ours, theirs = entry["matmul_tflops_per_second"].values()
        notes.append(
            f"- {name}: batches of {entry['batch_size']}, "
            f"{entry['size']}x{entry['size']} pixels; a step needs "
            f"{entry['gflops']['step']:,.0f} GFLOP. A bare product reaches "
            f"{ours:,.1f} TFLOP/s in JAX, {theirs:,.1f} in PyTorch."
        )
        for task, rates in entry["images_per_second"].items():
            shares = entry["share_of_matmul"][task]
            cells = [f"{r:,.0f} ({shares[n]:.0%})" for n, r in rates.items()]
            memory = [f"{mb:,}" for mb in entry["peak_mb"][task].values()]
            ratio = f"{entry['ratio'][task]:.2f}"
            rows.append([f"{name}: {task}", *cells, ratio, *memory])
        commands.append(f"`{entry['command']}`, {entry['date']}")
    text = (
        f"On one {results['device']}, medians; in brackets the share of the "
        f"rate of a bare product of {results['matmul_size']:,} rows and "
        f"columns, by the faster framework. `torch.compile` in the mode "
        f"`{results['compile_mode']}`. The aim is a ratio of at least 1.0."
    )
    runs = "; ".join(dict.fromkeys(commands))
    parts = [text, _table(head, rows), "\n".join(notes), f"Runs: {runs}."]
    return "\n\n".join(parts)


SECTIONS = {
    "accelerator": accelerator,
    "training_step": training_step,
    "vqgan_step": vqgan_step,
    "step_overhead": step_overhead,
    "nearest_code": nearest_code,
    "import_time": import_time,
}


def fill(page: str, name: str, text: str) -> str:
    """The page with the text between the markers of `name`."""
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    pattern = re.escape(start) + ".*?" + re.escape(end)
    if not re.search(pattern, page, flags=re.DOTALL):
        raise ValueError(f"{PAGE} has no markers {start} ... {end}")
    block = f"{start}\n\n{text}\n\n{end}"
    return re.sub(pattern, lambda _: block, page, flags=re.DOTALL)


def main():
    """Fills in every section that there are results for."""
    page = PAGE.read_text()
    for name, section in SECTIONS.items():
        path = RESULTS / f"{name}.json"
        if not path.exists():
            print(f"no results: {path}")
            continue
        results = json.loads(path.read_text())
        text = "\n\n".join([section(results), _origin(results)])
        page = fill(page, name, text)
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
