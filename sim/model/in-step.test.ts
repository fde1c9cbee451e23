import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { repository } from '../../e2e/cluster/settings.ts';

/**
 * Above each action of a model stands the code that it stands for: `code: name, name (rule): what`. Names are functions of
 * src/agent/ha, so that whoever renames or removes one looks at the model, too.
 */
const models = readdirSync(`${repository}/sim/model`).filter((f) => f.endsWith('.pml'));
const decisions = readdirSync(`${repository}/src/agent/ha`)
  .filter((f) => f.endsWith('.ts') && !f.endsWith('.test.ts'))
  .map((f) => readFileSync(`${repository}/src/agent/ha/${f}`, 'utf8'))
  .join('\n');

function exists(name: string): boolean {
  return new RegExp(`^(export )?(function|const|class) ${name}\\b|^ {2}${name}\\(`, 'm').test(decisions);
}

function lines(model: string): string[] {
  return readFileSync(`${repository}/sim/model/${model}`, 'utf8').split('\n');
}

describe.each(models)('%s', (model) => {
  it('names functions that exist', () => {
    const named = lines(model).flatMap((line) => {
      const text = /\/\* code: ([^:(*]*)/.exec(line)?.[1];
      return text === undefined ? [] : text.split(',').map((n) => n.trim());
    });
    expect(named.length).toBeGreaterThan(5);
    expect([...new Set(named)].filter((n) => !exists(n))).toEqual([]);
  });

  it('says of each action what it stands for', () => {
    const all = lines(model);
    const bare = all.filter((line, i) => {
      if (!line.includes(':: d_step')) return false;
      // Only preprocessor lines, and the macro's own name, may stand between.
      let above = i - 1;
      while (above > 0 && /^\s*#|^\s*$/.test(all[above] ?? '')) above -= 1;
      return !/\/\* (code|world|broken)\b/.test(all[above] ?? '');
    });
    expect(bare).toEqual([]);
  });
});
