import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { packageFile } from '../src/package.js';

describe('the proto files', () => {
  const directory = packageFile('proto/agentllm/v1');
  const files = readdirSync(directory).filter((name) => name.endsWith('.proto'));

  it('have one go_package option, which protoc-gen-go requires', () => {
    expect(files.length).toBeGreaterThan(10);
    for (const file of files)
      expect(readFileSync(join(directory, file), 'utf8'), file).toMatch(
        /^option go_package = "agentllm\/gen\/agentllm\/v1;agentllmv1";$/m,
      );
  });
});
