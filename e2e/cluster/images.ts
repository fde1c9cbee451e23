import { createHash, type Hash, randomUUID } from 'node:crypto';
import {
  cpSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { archives, cache, foreignContext, imagePrefix, nodes, repository } from './settings.ts';
import { CommandError, docker, report, run, succeeds } from './shell.ts';

export interface ImageSource {
  /** Name and tag without a registry, such as `koschei:dev`. */
  readonly name: string;
  /** Folder with the Dockerfile; its `FROM` is `localhost/debian:<suite>` or another image on this machine. */
  readonly context: string;
  /** What else is copied into the build context: path there -> file or folder on this machine. */
  readonly files?: Readonly<Record<string, string>>;
  /** The whole name; the one below the prefix of all images if left out. */
  readonly fullName?: string;
  /** Another base image than the Dockerfile's `ARG BASE`. */
  readonly base?: string;
  /** Labels of the image; another label makes another image of the same content. */
  readonly labels?: Readonly<Record<string, string>>;
}

/** Full name of an image: `localhost/<name>`, or `$KOSCHEI_IMAGE_PREFIX/<name>`. */
export function imageName(name: string): string {
  return `${imagePrefix}/${name}`;
}

/**
 * Builds an image and loads it into every node; both are skipped when nothing has changed. With KOSCHEI_CONTEXT set
 * it does nothing: the cluster then takes the image from the registry in KOSCHEI_IMAGE_PREFIX.
 * @returns the image's full name, for pod templates.
 */
export async function provideImage(source: ImageSource): Promise<string> {
  const name = imageName(source.name);
  if (foreignContext === undefined) {
    await buildImage(source);
    await loadImages([name]);
  }
  return name;
}

/**
 * Builds an image with docker, unless the present image of that name was made from the same files, labels and base
 * image.
 * @returns the image's full name.
 */
export async function buildImage(source: ImageSource): Promise<string> {
  const { fullName: name = imageName(source.name), base: otherBase } = source;
  const dockerfile = source.files?.Dockerfile ?? join(source.context, 'Dockerfile');
  const bases =
    otherBase === undefined
      ? readFileSync(dockerfile, 'utf8').matchAll(/^(?:FROM\s+|ARG BASE=)(localhost\/\S+)/gm)
      : [];
  const hash = createHash('sha256').update(JSON.stringify(source.labels ?? {}) + (otherBase ?? ''));
  for (const [, base = ''] of bases) {
    const suite = /^localhost\/debian:(\w+)$/.exec(base)?.[1];
    if (suite !== undefined) await debianImage(suite);
    hash.update(`${base}=${await imageId(base)}\n`);
  }
  hashFiles(hash, source.context, '');
  for (const [path, from] of Object.entries(source.files ?? {})) hashFiles(hash, from, path);
  const made = `koschei.made-from=${hash.digest('hex')}`;
  if ((await labelsOf(name)).includes(made)) return name;

  report(`building the image ${name} ...`);
  mkdirSync(cache, { recursive: true });
  const staged = mkdtempSync(`${cache}/context-`);
  try {
    cpSync(source.context, staged, { recursive: true });
    for (const [path, from] of Object.entries(source.files ?? {})) {
      mkdirSync(dirname(join(staged, path)), { recursive: true });
      cpSync(from, join(staged, path), { recursive: true });
    }
    const labels = [made, ...Object.entries(source.labels ?? {}).map(([key, value]) => `${key}=${value}`)];
    const options = [
      ...labels.flatMap((label) => ['--label', label]),
      ...(otherBase === undefined ? [] : ['--build-arg', `BASE=${otherBase}`]),
    ];
    await docker(['build', '-t', name, ...options, staged]);
    // Earlier versions, which have lost their name to this one.
    await succeeds('docker', ['image', 'prune', '-f', '--filter', 'label=koschei.made-from']);
    return name;
  } finally {
    rmSync(staged, { recursive: true, force: true });
  }
}

/** A minimal Debian without documentation and translations, made with mmdebstrap the first time. */
export async function debianImage(suite: string): Promise<string> {
  const name = `localhost/debian:${suite}`;
  if ((await imageId(name)) !== undefined) return name;
  report(`building the image ${name} (about 15 s) ...`);
  mkdirSync(cache, { recursive: true });
  const archive = `${cache}/debian-${suite}.tar`;
  const unwanted = ['doc', 'man', 'info', 'locale'].map(
    (each) => `--dpkgopt=path-exclude=/usr/share/${each}/*`,
  );
  await run('mmdebstrap', [
    '--quiet',
    '--variant=minbase',
    '--include=ca-certificates',
    ...unwanted,
    suite,
    archive,
  ]);
  await docker(['import', '--change', 'CMD ["/bin/bash"]', archive, name]);
  rmSync(archive);
  return name;
}

/** Id of an image on this machine, undefined if there is none of that name. */
export async function imageId(name: string): Promise<string | undefined> {
  try {
    return await docker(['image', 'inspect', '--format', '{{.Id}}', name]);
  } catch (error) {
    if (error instanceof CommandError && /no such image/i.test(error.output)) return undefined;
    throw error;
  }
}

async function labelsOf(name: string): Promise<string[]> {
  if ((await imageId(name)) === undefined) return [];
  const format = '{{range $key, $value := .Config.Labels}}{{$key}}={{$value}}\n{{end}}';
  return (await docker(['image', 'inspect', '--format', format, name])).split('\n');
}

/**
 * Loads images of this machine's docker into the nodes that do not have them yet, under their full names. All nodes
 * must be running. With KOSCHEI_CONTEXT set it does nothing.
 * @throws {Error} if there is no such image on this machine.
 * @throws {CommandError} if a node cannot be reached.
 */
export async function loadImages(tags: readonly string[]): Promise<void> {
  if (foreignContext !== undefined) return;
  const ids = new Map<string, string>();
  for (const tag of tags) {
    const id = await imageId(tag);
    if (id === undefined)
      throw new Error(`Expected an image ${tag} in this machine's docker; build it first.`);
    ids.set(tag, id);
  }
  const missing = await Promise.all(
    nodes.map(async ({ name }) => {
      const present = await imagesOn(name, tags);
      return { node: name, tags: tags.filter((tag) => present.get(tag) !== ids.get(tag)) };
    }),
  );
  const wanted = tags.filter((tag) => missing.some((each) => each.tags.includes(tag)));
  if (wanted.length === 0) return;
  report(`loading ${wanted.join(', ')} into the nodes ...`);
  const archive = `${randomUUID()}.tar`;
  try {
    await docker(['save', '-o', join(archives.here, archive), ...wanted]);
    const load = ['ctr', '-n', 'k8s.io', 'images', 'import', join(archives.there, archive)];
    const receivers = missing.filter((each) => each.tags.length > 0);
    await Promise.all(receivers.map(({ node }) => docker(['exec', node, ...load])));
  } finally {
    rmSync(join(archives.here, archive), { force: true });
  }
}

/** Which of these images a node's containerd has: name -> docker's id. */
async function imagesOn(node: string, tags: readonly string[]): Promise<Map<string, string>> {
  // Docker's id is the digest of the image's configuration, which containerd's manifest names.
  const script = `for tag in "$@"; do
    manifest=$(ctr -n k8s.io images ls "name==$tag" | awk 'NR == 2 { print $3 }')
    if [ -n "$manifest" ]; then echo "$tag $(ctr -n k8s.io content get "$manifest" | tr -d '[:space:]')"; fi
  done`;
  const lines = (await docker(['exec', node, 'sh', '-c', script, 'sh', ...tags], { timeout: 120_000 })).split(
    '\n',
  );
  const found = new Map<string, string>();
  for (const line of lines) {
    const [, tag, id] = /^(\S+) .*"config":\{[^}]*"digest":"(sha256:\w+)"/.exec(line) ?? [];
    if (tag !== undefined && id !== undefined) found.set(tag, id);
  }
  return found;
}

/** Builds what stands for public images in the tests, and loads it into the nodes. */
export async function provideStandIns(): Promise<void> {
  const here = `${repository}/e2e/cluster`;
  const sources: ImageSource[] = [
    { name: 'postgres:17', context: `${repository}/images/postgres` },
    {
      name: 'postgres:17.minor',
      context: `${repository}/images/postgres`,
      labels: { 'koschei.stands-for': 'another minor version' },
    },
    { name: 'postgres:17.uid-26', context: `${here}/postgres-uid-26` },
    { name: 'etcd:3.5', context: `${here}/etcd` },
    { name: 'not-postgres:1', context: `${here}/not-postgres` },
  ];
  const names: string[] = [];
  for (const source of sources) names.push(await buildImage(source));
  await loadImages(names);
}

/**
 * Adds a file, or all files of a folder, to a hash: names inside the build context, contents, and whether they are
 * executable; other permissions depend on the umask with which the repository was cloned.
 */
function hashFiles(hash: Hash, file: string, path: string): void {
  const status = lstatSync(file);
  hash.update(`${path} ${(status.mode & 0o100) === 0 ? '' : 'executable'}\n`);
  if (status.isSymbolicLink()) hash.update(readlinkSync(file));
  else if (!status.isDirectory()) hash.update(readFileSync(file));
  else for (const name of readdirSync(file).sort()) hashFiles(hash, join(file, name), join(path, name));
}
