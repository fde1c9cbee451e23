/** Ranges of the five fields of a cron line, in their order. */
const fields = [
  { name: 'minute', from: 0, to: 59 },
  { name: 'hour', from: 0, to: 23 },
  { name: 'day of month', from: 1, to: 31 },
  { name: 'month', from: 1, to: 12 },
  { name: 'day of week', from: 0, to: 7 },
] as const;

/**
 * What is wrong with a cron line of five fields, or undefined when nothing is. Numbers, `*`, lists, ranges and steps
 * are understood (POSIX crontab plus steps); names and `@daily` are not.
 */
export function cronFault(line: string): string | undefined {
  const parts = line.trim().split(/\s+/);
  if (parts.length !== fields.length) return `expected five fields, found ${parts.length}`;
  for (const [index, field] of fields.entries()) {
    for (const item of (parts[index] ?? '').split(',')) {
      const match = /^(?:\*|(\d{1,2})(?:-(\d{1,2}))?)(?:\/(\d{1,2}))?$/.exec(item);
      if (match === null) return `${field.name}: expected *, a number, a range or a step, found "${item}"`;
      const [, low, high, step] = match;
      for (const bound of [low, high]) {
        if (bound !== undefined && (Number(bound) < field.from || Number(bound) > field.to))
          return `${field.name}: expected ${field.from} to ${field.to}, found ${bound}`;
      }
      if (low !== undefined && high !== undefined && Number(low) > Number(high))
        return `${field.name}: the range ${low}-${high} is backwards`;
      if (step !== undefined && Number(step) === 0) return `${field.name}: a step of 0 never comes`;
      if (step !== undefined && low !== undefined && high === undefined)
        return `${field.name}: a step needs * or a range, found "${item}"`;
    }
  }
  return undefined;
}
