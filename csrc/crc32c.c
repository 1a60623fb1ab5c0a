/* CRC32C (Castagnoli), as RFC 3720 gives it: with the instruction where the CPU has it, else by tables. */
#include <string.h>
#include "experts.h"
#if defined(__aarch64__)
#include <sys/auxv.h>
#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1 << 7)
#endif
#endif

#define POLYNOMIAL 0x82f63b78u /* bit-reversed */

static uint32_t by_bits(uint32_t crc) {
  for (int i = 0; i < 8; i++) crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
  return crc;
}

/* Four bytes a turn; the tables are made for each call, which reads a thousand times as much. */
static uint32_t by_tables(uint32_t crc, const uint8_t *data, size_t n) {
  uint32_t table[4][256];
  for (uint32_t i = 0; i < 256; i++) table[0][i] = by_bits(i);
  for (int k = 1; k < 4; k++)
    for (int i = 0; i < 256; i++) table[k][i] = table[k - 1][i] >> 8 ^ table[0][table[k - 1][i] & 255];
  for (; n >= 4; n -= 4, data += 4) {
    crc ^= (uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24;
    crc = table[3][crc & 255] ^ table[2][crc >> 8 & 255] ^ table[1][crc >> 16 & 255] ^ table[0][crc >> 24];
  }
  for (; n; n--) crc = crc >> 8 ^ table[0][(crc ^ *data++) & 255];
  return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t crc, const uint8_t *data, size_t n) {
  uint64_t wide = crc, word;
  for (; n >= 8; n -= 8, data += 8) {
    memcpy(&word, data, 8);
    wide = __builtin_ia32_crc32di(wide, word);
  }
  for (crc = (uint32_t)wide; n; n--) crc = __builtin_ia32_crc32qi(crc, *data++);
  return crc;
}
static int has_instruction(void) { return __builtin_cpu_supports("sse4.2"); }
#elif defined(__aarch64__)
__attribute__((target("+crc"))) static uint32_t by_instruction(uint32_t crc, const uint8_t *data, size_t n) {
  uint64_t word;
  for (; n >= 8; n -= 8, data += 8) {
    memcpy(&word, data, 8);
    crc = __builtin_aarch64_crc32cx(crc, word);
  }
  for (; n; n--) crc = __builtin_aarch64_crc32cb(crc, *data++);
  return crc;
}
static int has_instruction(void) { return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0; }
#else
#define by_instruction by_tables
static int has_instruction(void) { return 0; }
#endif

uint32_t sw_crc32c(const uint8_t *data, size_t n) {
  return ~(has_instruction() ? by_instruction(~0u, data, n) : by_tables(~0u, data, n));
}

uint32_t sw_crc32c_by_tables(const uint8_t *data, size_t n) { return ~by_tables(~0u, data, n); }
