interface Entry {
  readonly at: number;
  readonly order: number;
  readonly run: () => void;
}

/** What is going to happen, in a binary heap: by time, and in the order of scheduling at the same time. */
export class EventQueue {
  readonly #heap: Entry[] = [];
  #order = 0;

  /** Schedules `run` for the simulated time `at`, integer milliseconds. */
  add(at: number, run: () => void): void {
    const heap = this.#heap;
    const entry = { at, order: this.#order++, run };
    let i = heap.push(entry) - 1;
    while (i > 0) {
      const up = (i - 1) >> 1;
      const parent = heap[up];
      if (parent === undefined || !precedes(entry, parent)) break;
      heap[i] = parent;
      i = up;
    }
    heap[i] = entry;
  }

  /** Takes out what happens next; undefined: nothing will. */
  take(): Entry | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined || heap.length === 0) return first;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      let lower = heap[child];
      if (lower === undefined) break;
      const right = heap[child + 1];
      if (right !== undefined && precedes(right, lower)) {
        lower = right;
        child += 1;
      }
      if (!precedes(lower, last)) break;
      heap[i] = lower;
      i = child;
    }
    heap[i] = last;
    return first;
  }
}

function precedes(a: Entry, b: Entry): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}
