export * from './etcd.ts';
export * from './keys.ts';
export * from './schemas.ts';
export * from './store.ts';
export * from './view.ts';
