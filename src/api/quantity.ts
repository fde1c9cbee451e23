import { z } from 'zod';

/**
 * Kubernetes quantities that make sense as a size or an amount: not negative, with an optional suffix. The grammar is
 * that of k8s.io/apimachinery/pkg/api/resource, without signs and without `n` and `u`.
 */
export const quantityPattern = /^[0-9]+(\.[0-9]+)?([KMGTPE]i|[mkMGTPE]|[eE][0-9]{1,2})?$/;

const quantityForm = 'an amount such as 500m, 2, 512Mi or 10Gi';

/** A volume size. A string only, so that it can be compared by a CEL rule. */
export const sizeSchema = (description: string) =>
  z.string().max(32).regex(quantityPattern, quantityForm).meta({ description });

/** An amount that YAML may carry as a number (`cpu: 2`) or a string (`cpu: 500m`); parsed to a string. */
export const quantitySchema = (description: string) =>
  z
    .union([z.int().min(0), z.string().max(32).regex(quantityPattern, quantityForm)])
    .transform(String)
    .meta({ description, 'x-kubernetes-int-or-string': true, pattern: quantityPattern.source });

const binary = { Ki: 1, Mi: 2, Gi: 3, Ti: 4, Pi: 5, Ei: 6 } as const;
const decimal = { k: 1, M: 2, G: 3, T: 4, P: 5, E: 6 } as const;

/**
 * The value of a quantity in its base unit (bytes, cores); exact up to 2^53.
 * Undefined when the text is not a quantity.
 */
export function parseQuantity(text: string): number | undefined {
  if (!quantityPattern.test(text)) return undefined;
  const [, digits = '', suffix = ''] = /^([0-9.]+)(.*)$/.exec(text) ?? [];
  const value = Number(digits);
  if (suffix === '') return value;
  if (suffix === 'm') return value / 1000;
  if (suffix in binary) return value * 1024 ** binary[suffix as keyof typeof binary];
  if (suffix in decimal) return value * 1000 ** decimal[suffix as keyof typeof decimal];
  return value * 10 ** Number(suffix.slice(1));
}
