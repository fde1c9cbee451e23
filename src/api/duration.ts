import { z } from 'zod';

/** A span of time the way Go and Kubernetes write it, in whole units from hours to seconds: `30m`, `1h30m`, `45s`, `0`. */
export const durationPattern = /^(0|([0-9]{1,4}h)?([0-9]{1,5}m)?([0-9]{1,7}s)?)$/;

const durationForm = 'a duration such as 30m, 1h30m or 45s';

/** A duration as people write it. What it may be is checked where it is used. */
export const durationSchema = z.string().min(1).max(24).regex(durationPattern, durationForm);

/** Milliseconds of a duration; undefined when the text is none. */
export function parseDuration(text: string): number | undefined {
  if (text === '') return undefined;
  const [whole, , hours, minutes, seconds] = durationPattern.exec(text) ?? [];
  if (whole === undefined) return undefined;
  const count = (part: string | undefined) => Number(part?.slice(0, -1) ?? 0);
  return ((count(hours) * 60 + count(minutes)) * 60 + count(seconds)) * 1000;
}
