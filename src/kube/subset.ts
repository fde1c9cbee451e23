/**
 * Lists that server-side apply merges item by item, so that others may have added items of their own. All other lists
 * belong to one manager as a whole.
 */
const mergedLists = new Set([
  'conditions',
  'containers',
  'env',
  'ephemeralContainers',
  'finalizers',
  'hostAliases',
  'imagePullSecrets',
  'initContainers',
  'ownerReferences',
  'ports',
  'secrets',
  'topologySpreadConstraints',
  'volumeDevices',
  'volumeMounts',
  'volumes',
]);
/** Below these fields values are quantities, which the server rewrites: `1024Mi` comes back as `1Gi`. */
const quantityMaps = new Set(['requests', 'limits', 'capacity', 'hard', 'overhead']);
const quantityFields = new Set(['sizeLimit', 'divisor']);

/**
 * Whether everything that `rendered` says is so in `live`, which may say more: defaults, other managers' fields,
 * status. Empty and missing are the same (the server drops empty lists, maps and texts), quantities are compared by
 * value, and lists that the API merges may have further items. A wrong `false` costs one needless apply each time.
 */
export function isSubset(rendered: unknown, live: unknown): boolean {
  return covers(rendered, live, '', false);
}

function covers(rendered: unknown, live: unknown, field: string, quantity: boolean): boolean {
  if (rendered === undefined) return true;
  if (isEmpty(rendered)) {
    if (Array.isArray(rendered) && mergedLists.has(field)) return true;
    return isEmpty(live) || (isRecord(rendered) && isRecord(live));
  }
  if (Array.isArray(rendered)) {
    if (!Array.isArray(live)) return false;
    if (mergedLists.has(field)) {
      return rendered.every((item) => live.some((other) => covers(item, other, '', quantity)));
    }
    return (
      rendered.length === live.length && rendered.every((item, i) => covers(item, live[i], '', quantity))
    );
  }
  if (isRecord(rendered)) {
    if (!isRecord(live)) return Object.values(rendered).every(isEmpty) && isEmpty(live);
    return Object.entries(rendered).every(([name, value]) =>
      covers(
        value,
        live[name],
        name,
        quantityFields.has(name) || (quantityMaps.has(field) && !isRecord(value)),
      ),
    );
  }
  if (rendered === live) return true;
  return quantity && sameQuantity(rendered, live);
}

/** What the server may leave out. Zero and false are only left out where they are the default, too. */
const isEmpty = (value: unknown): boolean =>
  value === undefined ||
  value === null ||
  value === '' ||
  value === 0 ||
  value === false ||
  (Array.isArray(value) && value.length === 0) ||
  (isRecord(value) && Object.values(value).every((inner) => inner === undefined));

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function sameQuantity(a: unknown, b: unknown): boolean {
  const [x, y] = [quantityValue(a), quantityValue(b)];
  return x !== undefined && y !== undefined && x === y;
}

const suffixes: Readonly<Record<string, number>> = {
  '': 0,
  n: -9,
  u: -6,
  m: -3,
  k: 3,
  M: 6,
  G: 9,
  T: 12,
  P: 15,
  E: 18,
};
const binarySuffixes = ['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei'];
const nano = 1_000_000_000n;

/** The value in billionths, exact, as k8s.io/apimachinery's Quantity has them; undefined for what is no quantity. */
function quantityValue(value: unknown): bigint | undefined {
  if (typeof value !== 'string' && typeof value !== 'number') return undefined;
  const match = /^([+-]?)(\d+)(?:\.(\d*))?([eE][+-]?\d{1,2}|[a-zA-Z]{0,2})$/.exec(String(value));
  if (match === null) return undefined;
  const [, sign = '', whole = '', fraction = '', suffix = ''] = match;
  const digits = BigInt(whole + fraction) * (sign === '-' ? -1n : 1n);
  const binary = suffix === '' ? 0 : binarySuffixes.indexOf(suffix);
  if (binary > 0) return (digits * 1024n ** BigInt(binary) * nano) / 10n ** BigInt(fraction.length);
  const exponent = /^[eE][+-]?\d/.test(suffix) ? Number(suffix.slice(1)) : suffixes[suffix];
  if (exponent === undefined) return undefined;
  const shift = 9 + exponent - fraction.length;
  return shift >= 0 ? digits * 10n ** BigInt(shift) : digits / 10n ** BigInt(-shift);
}
