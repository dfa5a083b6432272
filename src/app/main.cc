#include "app/cli.h"

int main(int argc, char** argv) {
  return nibble::app::run(argc, argv);
}
