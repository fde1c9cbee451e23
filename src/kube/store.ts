import { type KubeObject, objectKey } from './types.ts';

/** For each index a function that says under which values an object is found. */
export type Indexes<T> = Readonly<Record<string, (object: T) => readonly string[]>>;

/** What readers see of a cache. Objects are frozen: copy before changing. */
export interface ReadStore<T> {
  /** @param key `namespace/name`, or `name` */
  get(key: string): T | undefined;
  /** All objects, or those of a namespace. */
  list(namespace?: string): T[];
  /** Throws when there is no such index. */
  byIndex(index: string, value: string): T[];
  keys(): IterableIterator<string>;
  readonly size: number;
}

/** Objects by key and by index, frozen to the bottom. */
export class Store<T extends KubeObject> implements ReadStore<T> {
  readonly #objects = new Map<string, T>();
  readonly #indexes: Indexes<T>;
  readonly #indexed = new Map<string, Map<string, Set<string>>>();

  constructor(indexes: Indexes<T> = {}) {
    this.#indexes = indexes;
    for (const name of Object.keys(indexes)) this.#indexed.set(name, new Map());
  }

  get size(): number {
    return this.#objects.size;
  }

  get(key: string): T | undefined {
    return this.#objects.get(key);
  }

  list(namespace?: string): T[] {
    const all = [...this.#objects.values()];
    return namespace === undefined ? all : all.filter((object) => object.metadata.namespace === namespace);
  }

  keys(): IterableIterator<string> {
    return this.#objects.keys();
  }

  byIndex(index: string, value: string): T[] {
    const values = this.#indexed.get(index);
    if (values === undefined) throw new TypeError(`the cache has no index "${index}"`);
    return [...(values.get(value) ?? [])].flatMap((key) => this.#objects.get(key) ?? []);
  }

  /** Puts an object in and returns the one it replaces. */
  set(object: T): T | undefined {
    const key = objectKey(object);
    const previous = this.delete(key);
    this.#objects.set(key, deepFreeze(object));
    for (const [name, values] of this.#indexed) {
      for (const value of this.#indexes[name]?.(object) ?? []) {
        const keys = values.get(value);
        if (keys === undefined) values.set(value, new Set([key]));
        else keys.add(key);
      }
    }
    return previous;
  }

  /** Takes an object out and returns it. */
  delete(key: string): T | undefined {
    const object = this.#objects.get(key);
    if (object === undefined) return undefined;
    this.#objects.delete(key);
    for (const [name, values] of this.#indexed) {
      for (const value of this.#indexes[name]?.(object) ?? []) {
        const keys = values.get(value);
        keys?.delete(key);
        if (keys?.size === 0) values.delete(value);
      }
    }
    return object;
  }
}

/** Freezes plain JSON to the bottom, so that no reader of a cache can change what another one reads. */
export function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const inner of Object.values(value)) deepFreeze(inner);
  }
  return value;
}
