import { isForbidden, isInvalid } from '../kube/index.ts';
import { type ActionError, NameTakenError } from './execute.ts';
import type { Failure } from './instance/snapshot.ts';

/** What a failed action means for a status. */
export function failureOf(error: ActionError): Failure {
  const { cause } = error;
  const reason =
    cause instanceof NameTakenError
      ? 'name-taken'
      : isForbidden(cause)
        ? 'forbidden'
        : isInvalid(cause)
          ? 'invalid'
          : 'other';
  return { object: error.object, reason, message: error.message };
}
