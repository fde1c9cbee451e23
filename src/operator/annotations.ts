/** Annotations that only the operator uses. Those that people set are in `api/names.ts`. */
export const operatorAnnotation = {
  /** On a PersistentVolumeClaim: when the init Job had filled the volume. Without it the volume counts as empty. */
  initialized: 'koschei.dev/initialized',
  /** On a PersistentVolumeClaim: what was known about its data when its cluster was deleted, as JSON. */
  lastSeen: 'koschei.dev/last-seen',
  /** On a PersistentVolumeClaim: its instance was removed by scaling down; it is not adopted by itself. */
  released: 'koschei.dev/released',
  /** On a PgInstance: when its replacement began; its node is lost, together with its volume. */
  replacedSince: 'koschei.dev/replaced-since',
  /** On a PersistentVolumeClaim: when its instance was given up with its node, and which, as JSON. Nothing starts on it. */
  detached: 'koschei.dev/detached',
  /** On a PersistentVolumeClaim: major version of Postgres that the volume was made with. */
  postgresVersion: 'koschei.dev/postgres-version',
  /** On a StatefulSet: hash of what its pod template was made from. */
  madeFrom: 'koschei.dev/made-from',
  /** On an init Job: hash of its pod template, which cannot be changed in place. */
  template: 'koschei.dev/template',
} as const;
